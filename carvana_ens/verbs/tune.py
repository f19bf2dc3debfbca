"""tune: blend weights and threshold on out-of-fold maps, into tuning.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from carvana_ens import __version__
from carvana_ens.core.weights import parse_threshold, threshold_text
from carvana_ens.ensemble.disputed import keep_disputed
from carvana_ens.ensemble.kept_searches import KeptSearches
from carvana_ens.ensemble.objectives import Objective, objective_named
from carvana_ens.ensemble.pareto import Ensemble, MemberCost, ensembles, pick
from carvana_ens.ensemble.search import Found
from carvana_ens.ensemble.searched import SearchedPixels
from carvana_ens.ensemble.tuning import HonestScores, Tuning
from carvana_ens.ensemble.worth import MemberWorth, Worth, honest_folds, member_worth, subset_score, worth
from carvana_ens.errors import UsageError
from carvana_ens.files import digest
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Say, Track, unsaid, untracked
from carvana_ens.verbs.costs import member_costs
from carvana_ens.verbs.out_of_fold import OutOfFold
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.workspace import Workspace


@dataclass(frozen=True)
class Tuned:
    """tuning: what was written to path. left_out: training photos that some member has no out-of-fold map of."""

    path: Path
    tuning: Tuning
    left_out: int


def tune(
    project: Project,
    members: Sequence[str] = (),
    *,
    objective: str = "mean-dice",
    low: str | float | Fraction = "0.25",
    high: str | float | Fraction = "0.75",
    rounds: int = 20,
    seconds: float | None = None,
    seed: int = 0,
    honest: bool = True,
    max_models: int | None = None,
    max_seconds: float | None = None,
    threads: int | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Tuned:
    """Finds the weights and the threshold that score most on out-of-fold maps, and what to believe of them.

    Masks are decoded once and kept in ``cache/masks`` of the project, and finished searches in ``cache/searches.json``,
    so that a stopped run goes on; both may be removed at any time.
    objective: mean-dice, pooled-dice or mean-iou. low, high: thresholds to search between, every exact one; both the
    same: only that. rounds, seconds, seed: see ``ensemble.search.search``; seconds are shared among all searches.
    The best of joint and separate search, equal weights and the best single member is kept, so none of them scores
    more on these maps. honest: score it on images that it was not tuned on, too: one more search a fold.
    max_models, max_seconds: members that may stay, and seconds a photo that they may take together; those that score
    best honestly are then tuned alone.

    Raises:
        UsageError: unknown member or objective, thresholds that are no range, rounds under 1, or limits that no
            ensemble keeps or that take honest scores.
        StoreError: out-of-fold maps are missing, incomplete, or may have seen their images.
    """
    if rounds < 1:
        raise UsageError(f"--rounds takes a whole number from 1, got {rounds}")
    limited = max_models is not None or max_seconds is not None
    if limited and not honest:
        raise UsageError("which members are to stay is decided by honest scores: leave --no-honest out")
    wanted = objective_named(objective)
    names = [config.name for config in project.select(members)]
    costs = member_costs(project, names, need_seconds=max_seconds is not None)
    workspace = Workspace(project, say, track)
    maps = OutOfFold(workspace, names, threads)
    if maps.left_out:
        say(f"{maps.left_out} of {len(workspace.ids)} photos are not out-of-fold for every member and are left out")
    asked = _Asked(parse_threshold(low), parse_threshold(high), wanted, rounds, seconds, seed)
    facts = {"objective": objective, "thresholds": [str(asked.low), str(asked.high)], "seed": seed}
    with recorded(project, "tune", members=names, **facts) as run:
        outcome = _tuned(maps, asked, honest, costs)
        if limited and outcome.judged is not None:
            picked = pick(outcome.judged.subsets, max_models=max_models, max_seconds=max_seconds)
            say(f"within these limits {', '.join(picked.members)} score best: {picked.score:.6f} honestly")
            maps = maps.only(picked.members)
            outcome = _tuned(maps, asked, honest, member_costs(project, picked.members))
        elif limited:
            raise UsageError(f"which members are to stay cannot be decided: {outcome.reason}")
        run |= {"rounds": len(outcome.found.path), "kept": outcome.found.how, "in_time": outcome.found.in_time}
    _remark(outcome, say)
    tuning = outcome.tuning(maps.stores, wanted.name)
    tuning.write(project.tuning_file)
    return Tuned(project.tuning_file, tuning, maps.left_out)


@dataclass(frozen=True)
class _Asked:
    low: Fraction
    high: Fraction
    objective: Objective
    rounds: int
    seconds: float | None
    seed: int


@dataclass(frozen=True)
class _Judged:
    """folds: of each group. members: None where there is one only."""

    folds: Mapping[str, int]
    worth: Worth
    members: MemberWorth | None
    subsets: Sequence[Ensemble]


@dataclass(frozen=True)
class _Outcome:
    """reason: why it was not judged."""

    searched: SearchedPixels
    thresholds: Sequence[Fraction]
    found: Found
    groups: Mapping[str, str]
    judged: _Judged | None
    reason: str | None

    def tuning(self, stores: Mapping[str, ProbabilityStore], metric: str) -> Tuning:
        names, found, one = self.searched.names, self.found, self.judged
        return Tuning(
            weights=dict(zip(names, found.best.weights, strict=True)),
            threshold=threshold_text(found.best.threshold),
            images=len(self.groups),
            groups=len(set(self.groups.values())),
            scores={"tuned": found.best.score} | {name: setting.score for name, setting in found.settings.items()},
            singles=dict(zip(names, (single.score for single in found.singles), strict=True)),
            single_thresholds=dict(zip(names, (threshold_text(one.threshold) for one in found.singles), strict=True)),
            fingerprints={name: stores[name].fingerprint() for name in names},
            metric=metric,
            honest=None if one is None else HonestScores.of(one.worth, one.members, one.subsets, one.folds),
            reason=self.reason,
        )


def _tuned(maps: OutOfFold, asked: _Asked, honest: bool, costs: Mapping[str, MemberCost]) -> _Outcome:
    """Searches, and with ``honest`` once more for each fold."""
    project, track = maps.workspace.project, maps.workspace.track
    pixels = keep_disputed(
        list(maps.stores.values()),
        maps.ids,
        maps.truth,
        asked.low,
        asked.high,
        threads=maps.threads,
        folder=project.root,
        track=track,
    )
    folds = honest_folds(maps.groups, list(maps.tables.values()), asked.seed) if honest else None
    searches = 1 if folds is None else 1 + len({fold for fold in folds.values() if fold >= 0})
    options = {
        "rounds": asked.rounds,
        "seconds": None if asked.seconds is None else asked.seconds / searches,
        "seed": asked.seed,
    }
    thresholds = [str(asked.low), str(asked.high)]
    fingerprints = {name: store.fingerprint() for name, store in maps.stores.items()}
    kept = KeptSearches(
        project.root / "cache" / "searches.json",
        digest([__version__, fingerprints, maps.masks_hash, asked.objective.name, thresholds, options]),
    )
    searched = SearchedPixels(pixels, list(maps.stores), asked.objective, kept, **options, track=track)
    found = searched.found(maps.ids)
    if folds is None:
        reason = "there is one group only" if honest else "it was not asked for"
        return _Outcome(searched, pixels.thresholds, found, maps.groups, None, reason)
    judged = _judged(searched, maps, folds, costs, asked.seed)
    return _Outcome(searched, pixels.thresholds, found, maps.groups, judged, None)


def _judged(
    searched: SearchedPixels, maps: OutOfFold, folds: Mapping[str, int], costs: Mapping[str, MemberCost], seed: int
) -> _Judged:
    track = maps.workspace.track
    value = worth(searched, maps.groups, folds, track=track, seed=seed)
    score = subset_score(searched, value.honest, maps.groups, folds)
    members = member_worth(searched.names, score, maps.groups, track=track, seed=seed) if len(costs) > 1 else None
    return _Judged(folds, value, members, ensembles(costs, score, track))


def _remark(outcome: _Outcome, say: Say) -> None:
    """Says where more could be had by searching further."""
    found, thresholds = outcome.found, outcome.thresholds
    if not found.in_time:
        say("the time was up before the search was: more --seconds may find better weights")
    if len(thresholds) > 1 and found.best.threshold in (thresholds[0], thresholds[-1]):
        say(
            f"the best threshold, {threshold_text(found.best.threshold)}, is at the end of those that were tried: "
            f"search further with --from and --to"
        )
