"""tune: blend weights and threshold on out-of-fold maps, into tuning.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from carvana_ens import __version__
from carvana_ens.core.weights import parse_threshold, threshold_text
from carvana_ens.ensemble.disputed import common_ids, keep_disputed
from carvana_ens.ensemble.kept_searches import KeptSearches
from carvana_ens.ensemble.leaks import refuse_leaks
from carvana_ens.ensemble.objectives import Objective, objective_named
from carvana_ens.ensemble.pareto import ensembles, pick
from carvana_ens.ensemble.search import Found
from carvana_ens.ensemble.searched import SearchedPixels
from carvana_ens.ensemble.truth import TruthCache, cached_truth, source_hash
from carvana_ens.ensemble.tuning import HonestScores, Tuning
from carvana_ens.ensemble.worth import MemberWorth, Worth, honest_folds, member_worth, subset_score, worth
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.files import digest
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Say, Size, Track, unsaid, untracked
from carvana_ens.verbs.costs import member_costs
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
    costs = member_costs(project, names, need_seconds=max_seconds is not None) if limited else {}
    workspace = Workspace(project, say, track)
    maps = _OutOfFold(workspace, names, threads)
    if maps.left_out:
        say(f"{maps.left_out} of {len(workspace.ids)} photos are not out-of-fold for every member and are left out")
    asked = _Asked(parse_threshold(low), parse_threshold(high), wanted, rounds, seconds, seed)
    facts = {"objective": objective, "thresholds": [str(asked.low), str(asked.high)], "seed": seed}
    with recorded(project, "tune", members=names, **facts) as run:
        outcome = maps.tuned(asked, honest)
        if limited and outcome.worth is not None:
            score = subset_score(outcome.searched, outcome.worth.honest, maps.groups, outcome.folds)
            picked = pick(ensembles(costs, score, track), max_models=max_models, max_seconds=max_seconds)
            say(f"within these limits {', '.join(picked.members)} score best: {picked.score:.6f} honestly")
            outcome = maps.only(picked.members).tuned(asked, honest)
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
class _Outcome:
    """reason: why there is no worth, where there could be one."""

    searched: SearchedPixels
    thresholds: Sequence[Fraction]
    found: Found
    folds: Mapping[str, int]
    groups: Mapping[str, str]
    worth: Worth | None
    members: MemberWorth | None
    reason: str | None

    def tuning(self, stores: Mapping[str, ProbabilityStore], metric: str) -> Tuning:
        names, found = self.searched.names, self.found
        return Tuning(
            weights=dict(zip(names, found.best.weights, strict=True)),
            threshold=threshold_text(found.best.threshold),
            images=len(self.groups),
            groups=len(set(self.groups.values())),
            scores={"tuned": found.best.score} | {name: setting.score for name, setting in found.settings.items()},
            singles=dict(zip(names, (single.score for single in found.singles), strict=True)),
            fingerprints={name: stores[name].fingerprint() for name in names},
            metric=metric,
            honest=None if self.worth is None else HonestScores.of(self.worth, self.members, self.folds),
            reason=self.reason,
        )


class _OutOfFold:
    """The out-of-fold maps of some members, checked against leaks, of the images that all of them have."""

    def __init__(self, workspace: Workspace, names: Sequence[str], threads: int | None) -> None:
        project = workspace.project
        self._workspace, self._threads = workspace, threads
        self.stores = {name: _out_of_fold_store(project, name) for name in names}
        known = set(workspace.ids)
        self.ids = [image_id for image_id in common_ids(list(self.stores.values())) if image_id in known]
        self.left_out = len(workspace.ids) - len(self.ids)
        self.groups = {image_id: workspace.groups[image_id] for image_id in self.ids}
        seen = {store.provenance.fold_table["name"] for store in self.stores.values() if store.provenance.fold_table}
        self._tables = {name: workspace.fold_table(name) for name in sorted(seen) if name in project.folds}
        refuse_leaks(self.stores, self.ids, workspace.groups, self._tables)

    def only(self, names: Sequence[str]) -> _OutOfFold:
        """The same of some of the members."""
        return _OutOfFold(self._workspace, names, self._threads)

    def tuned(self, asked: _Asked, honest: bool) -> _Outcome:
        """Searches, and with ``honest`` once more for each fold."""
        project, track = self._workspace.project, self._workspace.track
        first = next(iter(self.stores.values()))
        truth, source = _truth(self._workspace, {one: first.sizes[first.index[one]] for one in self.ids}, self._threads)
        pixels = keep_disputed(
            list(self.stores.values()),
            self.ids,
            truth,
            asked.low,
            asked.high,
            threads=self._threads,
            folder=project.root,
            track=track,
        )
        folds = honest_folds(self.groups, list(self._tables.values()), asked.seed) if honest else None
        searches = 1 if folds is None else 1 + len({fold for fold in folds.values() if fold >= 0})
        options = {
            "rounds": asked.rounds,
            "seconds": None if asked.seconds is None else asked.seconds / searches,
            "seed": asked.seed,
        }
        thresholds = [str(asked.low), str(asked.high)]
        fingerprints = {name: store.fingerprint() for name, store in self.stores.items()}
        kept = KeptSearches(
            project.root / "cache" / "searches.json",
            digest([__version__, fingerprints, source, asked.objective.name, thresholds, options]),
        )
        searched = SearchedPixels(pixels, list(self.stores), asked.objective, kept, **options, track=track)
        found = searched.found(self.ids)
        worths: tuple[Worth | None, MemberWorth | None] = (None, None)
        if folds is not None:
            value = worth(searched, self.groups, folds, track=track, seed=asked.seed)
            beside = None
            if len(self.stores) > 1:
                beside = member_worth(searched, value.honest, self.groups, folds, track=track, seed=asked.seed)
            worths = value, beside
        reason = None if folds is not None else "it was not asked for" if not honest else "there is one group only"
        return _Outcome(searched, pixels.thresholds, found, folds or {}, self.groups, *worths, reason)


def _truth(workspace: Workspace, sizes: Mapping[str, Size], threads: int | None) -> tuple[TruthCache, str]:
    """The masks, and the hash of where they come from."""
    project, masks = workspace.project, workspace.masks
    assert project.data.masks is not None  # or the masks could not have been opened
    source = source_hash(project.data.masks, project.data.categories, threads)
    path = project.root / "cache" / "masks"
    return cached_truth(path, masks, source, sizes, threads=threads, track=workspace.track), source


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


def _out_of_fold_store(project: Project, name: str) -> ProbabilityStore:
    path = project.store_path(name, "oof")
    if not path.exists():
        raise StoreError(f"member {name} has no out-of-fold maps ({path} is not there): run predict or import first")
    store = open_store(path)
    store.require_complete()
    if store.provenance.seen == "unknown":
        raise StoreError(
            f"{path}: nobody says that the model behind these maps had not seen the photos; if so, declare it with "
            f"--out-of-fold (import, or add-model --checkpoint) and make the maps again with --fresh"
        )
    return store
