"""The ratios that we hold ourselves to, taken from one run's contests."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from carvana_ens.types import Size
from carvana_ens.verbs.bench.course import Options
from carvana_ens.verbs.bench.disk import LAYOUTS
from carvana_ens.verbs.bench.end_to_end import PNG, in_processes, in_threads, one_thread
from carvana_ens.verbs.bench.in_memory import (
    COCO_TEXT,
    LEAN_NUMPY,
    LOOP,
    OUR_BITS_TEXT,
    OUR_BLEND,
    OUR_CURVE,
    OUR_TEXT,
    READ,
    READ_MASK,
)
from carvana_ens.verbs.bench.race import Contest

STANDARD_SIZE, STANDARD_MEMBERS = Size(1280, 1918), 8
"""What the bars are set for."""


@dataclass(frozen=True)
class Bar:
    """what: the ratio in words. ratio: of times, measured. bar: what it is to reach (at_least), or to stay under.

    met: None where the run is of another size or number of members than the bars are set for.
    """

    what: str
    kind: str
    ratio: float
    bar: float
    at_least: bool
    met: bool | None


@dataclass(frozen=True)
class _Rule:
    """The time of ``over`` divided by that of ``under``, both rows of one contest."""

    what: str
    contest: str
    over: str
    under: str
    bar: float
    at_least: bool
    kind: str | None = None


def bars(contests: Sequence[Contest], options: Options, sizes: Collection[Size]) -> list[Bar]:
    """Every bar whose contest was held with both contestants, in the order of the rules. sizes: those of all maps."""
    standard = set(sizes) == {STANDARD_SIZE} and options.members == STANDARD_MEMBERS
    return [
        _judged(rule, contest.kind, over.ms / under.ms, standard)
        for rule in _rules(options)
        for contest in contests
        if contest.name == rule.contest and rule.kind in (None, contest.kind)
        for over, under in [(contest.find(rule.over), contest.find(rule.under))]
        if over is not None and under is not None and under.ms
    ]


def _judged(rule: _Rule, kind: str, ratio: float, standard: bool) -> Bar:
    met = (ratio >= rule.bar if rule.at_least else ratio <= rule.bar) if standard else None
    return Bar(rule.what, kind, ratio, rule.bar, rule.at_least, met)


def _rules(options: Options) -> Iterator[_Rule]:
    best, threads = list(LAYOUTS)[-1], options.threads
    yield _Rule("mask to text, beside reading the mask once", "rle.mask", OUR_TEXT, READ_MASK, 1.6, False)
    yield _Rule("mask to text, times as fast as the leanest numpy", "rle.mask", LEAN_NUMPY, OUR_TEXT, 5, True)
    yield _Rule("mask to text, times as fast as pycocotools + text", "rle.mask", COCO_TEXT, OUR_TEXT, 8, True)
    lean = f"{LEAN_NUMPY}, from the mask"
    yield _Rule("bit words to text, times as fast as that numpy", "rle.bits", lean, OUR_BITS_TEXT, 20, True)
    yield _Rule("blend + cut + text, beside reading the maps once", "blend", OUR_BLEND, READ, 1.1, False)
    curve = "Dice at all thresholds, times as fast as the loop"
    yield _Rule(curve, "curve.all", LOOP, OUR_CURVE, 150, True, "saturated")
    yield _Rule(curve, "curve.all", LOOP, OUR_CURVE, 60, True, "speckled")
    curve = "Dice at .25 to .75, times as fast as the loop over all 255"
    yield _Rule(curve, "curve.range", f"{LOOP}, all 255", OUR_CURVE, 150, True)
    road = "stores to .csv.gz in one thread, times as fast as the PNG way"
    yield _Rule(road, "submission.one", PNG, one_thread(best), 80, True)
    yield _Rule(
        f"{threads} threads, beside {threads} processes of one thread (1 = as fast)",
        "submission.threads",
        in_processes(best, threads),
        in_threads(best, threads),
        0.9,
        True,
    )
