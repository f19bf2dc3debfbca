"""Scores of blends from disputed pixels beside scores from whole maps, and the searches that this makes possible.

    python tests/benchmarks/bench_search.py FOLDER --masks MASKS
    python tests/benchmarks/bench_search.py FOLDER --images 8 --size 320x480

The masks (drawn cars without --masks) and their mirror images make ``--images`` pictures; maps of the members are made
from them. Everything is on one thread. The maps lie in memory (1.3 GB for 64 images of 8 members), and once more as
stores in a folder of its own under FOLDER, removed at the end, for the pass that keeps the disputed pixels. Every score
is compared with numpy's: another last bit ends the run. Needs carvana-ens[bench].
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from carvana_ens.core.blend import blend_bits
from carvana_ens.core.curve import dice_curve, histograms
from carvana_ens.core.dice import counts, dice_from_counts
from carvana_ens.core.rle import mask_bits
from carvana_ens.core.weights import cut_sum
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.disputed import Disputed, keep_disputed
from carvana_ens.ensemble.objectives import OBJECTIVES
from carvana_ens.ensemble.search import search
from carvana_ens.store.store import open_store
from carvana_ens.types import Size
from carvana_ens.verbs.bench import KINDS
from carvana_ens.verbs.bench.disk import image_ids, write_stores
from carvana_ens.verbs.bench.maps import Maps, drawn_masks, given_masks, made_maps
from carvana_ens.verbs.bench.peers import Peers

DICE = OBJECTIVES["mean-dice"]
HALF, LOW, HIGH = Fraction(1, 2), Fraction(1, 4), Fraction(3, 4)
ROUNDS = 32
ENOUGH = 0.05


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--masks", type=Path, help="true masks: a folder, an RLE table or a COCO file")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=Size.parse, default=Size(1280, 1918), help="HxW")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--kind", choices=[*KINDS], default="saturated")
    parser.add_argument("--runs", type=int, default=5, help="times that each is measured, in turn")
    return parser.parse_args()


def mean(scores: list[float]) -> float:
    """One after the other, as our scores are added."""
    return reduce(lambda total, score: total + score, scores) / len(scores)


class Ways:
    """One score of all images, each in its own way; weights differ a little from call to call, as in a search."""

    def __init__(self, maps: Maps, members: int, narrow: Disputed, wide: Disputed) -> None:
        self.stacks = [maps.stack(image, members) for image in range(maps.distinct)]
        self.flats = [mask.reshape(-1) for mask in maps.masks]
        self.words = [mask_bits(mask) for mask in maps.masks]
        self.weights = np.arange(1, members + 1, dtype=np.uint32)
        self.cut = cut_sum(HALF, 255, int(self.weights.sum()))
        self.narrow, self.wide = narrow, wide

    def numpy_maps(self) -> float:
        """float32, exact here: every sum is a whole number below 2**24."""
        scores = []
        for codes, truth in zip(self.stacks, self.flats, strict=True):
            total = np.zeros(truth.size, np.float32)
            for weight, row in zip(self.weights, codes, strict=True):
                total += np.float32(weight) * row
            on = total >= self.cut
            both, areas = int(np.count_nonzero(on & truth)), int(np.count_nonzero(on)) + int(np.count_nonzero(truth))
            scores.append(2 * both / areas if areas else 1.0)
        return mean(scores)

    def our_maps(self) -> float:
        found = []
        for codes, truth in zip(self.stacks, self.words, strict=True):
            found.append(dice_from_counts(*counts(blend_bits(codes, self.weights, self.cut), truth)))
        return mean(found)

    def our_map_curves(self) -> np.ndarray:
        curves: Any = 0
        for codes, truth in zip(self.stacks, self.words, strict=True):
            curves = curves + dice_curve(*histograms(codes, self.weights, truth, 64, 191))
        return curves[63:191] / len(self.stacks)

    def at_the_half(self) -> float:
        return self.narrow.score(DICE, self.weights, HALF)

    def in_the_range(self) -> float:
        return self.wide.score(DICE, self.weights, HALF)

    def curve(self) -> np.ndarray:
        return self.wide.curve(DICE, self.weights)

    def caruana(self) -> list[int]:
        """ROUNDS rounds that try every member."""
        chosen = [0] * len(self.weights)
        for _ in range(ROUNDS):
            chosen[int(np.argmax(self.narrow.scores_of_each_added(DICE, chosen, HALF)))] += 1
        return chosen

    def line(self) -> np.ndarray:
        return self.narrow.line(DICE, self.weights, 0, range(256), HALF)


def timed(ways: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Median seconds of each, taken in turn; the first round, in which kernels may be compiled, is not counted.

    What is short is repeated for ENOUGH seconds in its turn: in a search, too, one score follows the other.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            calls, start = 0, time.perf_counter()
            while (seconds := time.perf_counter() - start) < ENOUGH or not calls:
                way()
                calls += 1
            if run:
                times[name].append(seconds / calls)
    return {name: statistics.median(taken) for name, taken in times.items()}


def same(name: str, got: Any, expected: Any) -> None:
    if not np.array_equal(got, expected):
        raise SystemExit(f"{name}: {got} is not {expected} to the last bit")


def made(options: argparse.Namespace) -> Maps:
    """Half of the pictures, and their mirror images."""
    half = max(options.images // 2, 1)
    with Peers() as peers:
        cv2 = peers.need("cv2", "making maps from masks")
        if options.masks is None:
            masks, source = drawn_masks(half, options.size)
        else:
            masks, source = given_masks(cv2, options.masks, half, options.size)
        mirrored = [np.ascontiguousarray(mask[:, ::-1]) for mask in masks]
        return made_maps(cv2, options.kind, [*masks, *mirrored], f"{source} and their mirror images", options.members)


def main() -> None:
    options = parsed()
    maps = made(options)
    print(maps.facts.line)
    print(f"{maps.distinct} images, {options.members} members, 1 thread")
    options.folder.mkdir(parents=True, exist_ok=True)
    ids = image_ids(maps.distinct)
    words = dict(zip(ids, map(mask_bits, maps.masks), strict=True))
    with tempfile.TemporaryDirectory(prefix="carvana-ens-search-", dir=options.folder) as folder:
        paths = write_stores(maps, options.members, maps.distinct, Path(folder))
        stores = {name: open_store(path) for name, path in paths.items()}
        blend = Blend(stores)

        def kept(low: Fraction, high: Fraction) -> Disputed:
            return keep_disputed([*stores.values()], ids, lambda i, _: words[i], low, high, threads=1)

        ways = Ways(maps, options.members, kept(HALF, HALF), kept(LOW, HIGH))
        passes: dict[str, Callable[[], Any]] = {
            "one pass: blend of the stores": lambda: [*blend.each(lambda _, bits: bits.size, 1)],
            "one pass: disputed at .5": lambda: kept(HALF, HALF),
            "one pass: disputed at .25 to .75": lambda: kept(LOW, HIGH),
        }
        taken = timed(passes, options.runs)
    expected = ways.numpy_maps()
    for name, got in (("blend", ways.our_maps()), (".5", ways.at_the_half()), (".25 to .75", ways.in_the_range())):
        same(name, got, expected)
    same("curve", ways.curve(), ways.our_map_curves())
    same("line", ways.line()[int(ways.weights[0])], expected)
    taken |= timed(
        {
            "score at .5: numpy, whole maps": ways.numpy_maps,
            "score at .5: our blend, whole maps": ways.our_maps,
            "score at .5: disputed at .5": ways.at_the_half,
            "score at .5: disputed at .25 to .75": ways.in_the_range,
            "curve .25 to .75: ours, whole maps": ways.our_map_curves,
            "curve .25 to .75: disputed": ways.curve,
            "256 values of one weight at .5": ways.line,
            f"Caruana at .5: {ROUNDS} rounds of {options.members}": ways.caruana,
            "the whole search, .25 to .75": lambda: search(ways.wide),
        },
        options.runs,
    )
    for name, seconds in taken.items():
        print(f"{name:38} {seconds * 1e3:>10.3f} ms")
    kept_share = [ways.narrow.pixels.codes.size, ways.wide.pixels.codes.size]
    for name, size in zip((".5", ".25 to .75"), kept_share, strict=True):
        print(
            f"kept at {name}: {size / sum(stack.size for stack in ways.stacks):.2%} of the pixels, {size / 1e6:.1f} MB"
        )
    plain, ours = taken["score at .5: numpy, whole maps"], taken["score at .5: our blend, whole maps"]
    half, wide = taken["score at .5: disputed at .5"], taken["score at .5: disputed at .25 to .75"]
    one = taken["one pass: blend of the stores"]
    caruana = taken[f"Caruana at .5: {ROUNDS} rounds of {options.members}"]
    print(f"at .5:              {plain / half:>8.0f} times numpy (1000 wanted), {ours / half:.0f} times our blend (50)")
    print(f"kept for .25 - .75: {plain / wide:>8.0f} times numpy (400 wanted), {ours / wide:.0f} times our blend (20)")
    print(f"{ROUNDS * options.members} evaluations take {caruana / plain:.3f} of one in numpy (under 1 wanted)")
    for name in ("disputed at .5", "disputed at .25 to .75"):
        print(f"one pass, {name}: {taken[f'one pass: {name}'] / one:.2f} times one blend pass (2.5 at most wanted)")


if __name__ == "__main__":
    main()
