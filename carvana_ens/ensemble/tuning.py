"""tuning.json: tuned weights and threshold, what to believe of them, and the hashes of what they came from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from carvana_ens.core.spaces import Space
from carvana_ens.core.weights import threshold_text
from carvana_ens.ensemble.blending import check_cut
from carvana_ens.ensemble.bootstrap import Interval
from carvana_ens.ensemble.out_of_fold import OutOfFold
from carvana_ens.ensemble.pareto import Ensemble
from carvana_ens.ensemble.steps import steps_text
from carvana_ens.ensemble.tuner import Outcome, Tried
from carvana_ens.ensemble.worth import MemberWorth, Worth
from carvana_ens.errors import DataError, ProjectError, StaleError, UsageError
from carvana_ens.files import write_json
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Json

SCHEMA = 2


@dataclass(frozen=True)
class FoldChoice:
    """What was searched without the groups of a fold. weights: integer, by member. threshold: exact."""

    held_out: list[str]
    weights: Mapping[str, int]
    threshold: str


@dataclass(frozen=True)
class Subset:
    """Some of the members, and their honest Dice with the weights of each fold's search."""

    members: list[str]
    dice: float


@dataclass(frozen=True)
class HonestScores:
    """Dice on images that were not tuned on; see ``ensemble.honest`` and ``ensemble.worth``.

    score: of the tuned ensemble. optimism: the Dice of its weights and threshold on the images that they were tuned on,
    minus this. over_equal, over_single: gain over equal weights and over the best single member. folds: what was
    searched without each fold. buys: what each member adds beside all others. could_go: members that could all go
    together, in the order of going, with what is lost by then. subsets: smaller ensembles; see ``pareto.ensembles``.
    """

    score: Interval
    optimism: float
    over_equal: Interval
    over_single: Interval
    folds: Mapping[str, FoldChoice]
    buys: Mapping[str, Interval]
    could_go: Mapping[str, Interval]
    subsets: list[Subset]

    @classmethod
    def of(
        cls, worth: Worth, members: MemberWorth | None, subsets: Iterable[Ensemble], fold_of: Mapping[str, int]
    ) -> HonestScores:
        """As they were found. members: None where there is one only. fold_of: the fold of each group."""
        folds = {
            str(fold): FoldChoice(
                sorted(group for group, number in fold_of.items() if number == fold), choice.weights, choice.threshold
            )
            for fold, choice in worth.honest.choices.items()
        }
        buys, could_go = ({}, {}) if members is None else (members.buys, members.could_go)
        return cls(
            worth.score,
            worth.honest.optimism,
            worth.over_equal,
            worth.over_single,
            folds,
            dict(buys),
            dict(could_go),
            [Subset(list(one.members), one.score) for one in subsets],
        )

    @classmethod
    def from_json(cls, value: Json) -> HonestScores:
        """What ``dataclasses.asdict`` made plain."""
        score, over_equal, over_single = (Interval(**value[name]) for name in ("score", "over_equal", "over_single"))
        folds = {fold: FoldChoice(**choice) for fold, choice in value["folds"].items()}
        buys, could_go = (_intervals(value[name]) for name in ("buys", "could_go"))
        subsets = [Subset(**subset) for subset in value["subsets"]]
        return cls(score, float(value["optimism"]), over_equal, over_single, folds, buys, could_go, subsets)


def _intervals(value: Json) -> dict[str, Interval]:
    return {name: Interval(**interval) for name, interval in value.items()}


@dataclass(frozen=True)
class Tuning:
    """What ``tune`` found.

    weights: integer blend weights by member, of all that were searched (0: not chosen). threshold: exact, ``k/S``.
    metric, images, groups: what was scored, on how many images of how many groups. scores: of "tuned", "equal", "best
    single" and the searches, each at its own best threshold; all on the maps that were tuned on, so none is an honest
    estimate. singles: of every member alone, at the threshold in ``single_thresholds``. fingerprints: of each member's
    out-of-fold store. masks: hash of where the masks come from. honest: None where there are none; ``reason`` says why.
    space: that weights and thresholds are of, as ``Space.to_json`` gives it; None: probabilities. cut: "threshold", or
    "expected-dice", which leaves the threshold unused. steps: post-processing, as ``ensemble.steps`` reads it. final:
    Dice by that cut and these steps on the images tuned on; None where they change nothing. tried: what else was, in
    order.
    """

    weights: Mapping[str, int]
    threshold: str
    images: int
    scores: Mapping[str, float]
    singles: Mapping[str, float]
    single_thresholds: Mapping[str, str]
    fingerprints: Mapping[str, str]
    groups: int
    masks: str
    metric: str = "mean Dice"
    honest: HonestScores | None = None
    reason: str | None = None
    space: Json = None
    cut: str = "threshold"
    steps: str = ""
    final: float | None = None
    tried: list[Tried] = field(default_factory=list)

    @classmethod
    def of(cls, outcome: Outcome, maps: OutOfFold, metric: str) -> Tuning:
        """What was found on these maps."""
        names, found, judged = outcome.names, outcome.found, outcome.judged
        honest = None
        if judged is not None:
            honest = HonestScores.of(judged.worth, judged.members, judged.subsets, judged.folds)
        return cls(
            weights=outcome.weights,
            threshold=threshold_text(found.best.threshold),
            images=len(maps.ids),
            groups=len(set(maps.own_groups.values())),
            scores={"tuned": found.best.score} | {name: setting.score for name, setting in found.settings.items()},
            singles=dict(zip(names, (single.score for single in found.singles), strict=True)),
            single_thresholds=dict(zip(names, (threshold_text(one.threshold) for one in found.singles), strict=True)),
            fingerprints={name: maps.stores[name].fingerprint() for name in names},
            masks=maps.source,
            metric=metric,
            honest=honest,
            reason=outcome.reason,
            space=None if outcome.space.kind == "probability" else outcome.space.to_json(),
            cut=outcome.cut,
            steps=steps_text(outcome.steps, whole=True),
            final=outcome.final,
            tried=list(outcome.tried),
        )

    def blending_space(self) -> Space:
        """The space that weights and threshold are of.

        Raises:
            DataError: its tables are damaged.
        """
        return Space() if self.space is None else Space.from_json(self.space)

    def write(self, path: Path) -> None:
        """Replaces ``path``."""
        write_json(path, {"schema": SCHEMA, **dataclasses.asdict(self)})


def read_tuning(path: Path) -> Tuning:
    """Reads what ``Tuning.write`` wrote.

    Raises:
        ProjectError: there is none, or it is damaged or of another schema.
    """
    try:
        document: Json = json.loads(path.read_text(encoding="utf-8"))
        schema = document.pop("schema")
        if schema != SCHEMA:
            raise ProjectError(f"{path} has schema {schema!r}, this version reads {SCHEMA}: run carvana-ens tune again")
        honest = document.pop("honest")
        tried = [Tried(one["name"], Interval(**one["gain"]), one["reason"]) for one in document.pop("tried")]
        read = None if honest is None else HonestScores.from_json(honest)
        tuning = Tuning(**document, honest=read, tried=tried)
        _check(tuning)
        return tuning
    except FileNotFoundError:
        raise ProjectError(f"{path} is not there: run carvana-ens tune first") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError, UsageError) as error:
        raise ProjectError(f"{path} cannot be read ({error}): run carvana-ens tune again") from error


def _check(tuning: Tuning) -> None:
    weights = tuning.weights
    if not all(type(weight) is int and weight >= 0 for weight in weights.values()) or not any(weights.values()):
        raise ValueError(f"weights {weights!r} are not whole numbers from 0, one of them above 0")
    if tuning.fingerprints.keys() != weights.keys() or not isinstance(tuning.threshold, str):
        raise ValueError("it needs a threshold, and a fingerprint for each weight")
    check_cut(tuning.cut, tuning.blending_space())


def check_members(path: Path, tuning: Tuning, members: Collection[str]) -> None:
    """Refuses tuned values of members that are not in the project any more.

    Raises:
        StaleError: names the member.
    """
    for name in tuning.weights:
        if name not in members:
            raise StaleError(f"{path} was made with member {name}, which is gone: run carvana-ens tune again")


def check_fresh(
    path: Path, tuning: Tuning, oof: Mapping[str, ProbabilityStore], used: Mapping[str, ProbabilityStore]
) -> None:
    """Refuses tuned values whose sources have changed since.

    oof: the out-of-fold stores of the tuned members as they are now. used: the stores that are about to be blended.

    Raises:
        StaleError: names the member and what changed.
    """
    for name, fingerprint in tuning.fingerprints.items():
        if oof[name].fingerprint() != fingerprint:
            raise StaleError(
                f"{path} is stale: the out-of-fold maps of {name} changed since; run carvana-ens tune again"
            )
    for name, store in used.items():
        mine, theirs = store.provenance, oof[name].provenance
        if mine.member != theirs.member or mine.checkpoints != theirs.checkpoints or mine.plugin != theirs.plugin:
            raise StaleError(
                f"{path} does not fit {store.path}: its maps come from another config, checkpoint or plugin version of "
                f"{name} than the out-of-fold maps; run carvana-ens predict {name} again, then tune"
            )
