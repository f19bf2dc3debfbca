"""tune: blend weights and threshold on out-of-fold maps, into tuning.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from carvana_ens.core.weights import parse_threshold, threshold_text
from carvana_ens.ensemble.disputed import common_ids, keep_disputed
from carvana_ens.ensemble.leaks import refuse_leaks
from carvana_ens.ensemble.objectives import objective_named
from carvana_ens.ensemble.search import Found, search
from carvana_ens.ensemble.truth import TruthCache, cached_truth, source_hash
from carvana_ens.ensemble.tuning import Tuning
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Say, Size, Track, unsaid, untracked
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
    threads: int | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Tuned:
    """Finds the weights and the threshold that score most on out-of-fold maps.

    Masks are decoded once and kept in ``cache/masks`` of the project, which may be removed at any time.
    objective: mean-dice, pooled-dice or mean-iou. low, high: thresholds to search between, every exact one; both the
    same: only that. rounds, seconds, seed: see ``ensemble.search.search``.
    The best of joint and separate search, equal weights and the best single member is kept, so none of them scores
    more on these maps. What it scores is what it was tuned on, not an honest estimate.

    Raises:
        UsageError: unknown member or objective, thresholds that are no range, or rounds under 1.
        StoreError: out-of-fold maps are missing, incomplete, or may have seen their images.
    """
    if rounds < 1:
        raise UsageError(f"--rounds takes a whole number from 1, got {rounds}")
    least, most = parse_threshold(low), parse_threshold(high)
    wanted = objective_named(objective)
    names = [config.name for config in project.select(members)]
    stores = [_out_of_fold_store(project, name) for name in names]
    workspace = Workspace(project, say, track)
    known = set(workspace.ids)
    ids = [image_id for image_id in common_ids(stores) if image_id in known]
    used = {store.provenance.fold_table["name"] for store in stores if store.provenance.fold_table}
    tables = {name: workspace.fold_table(name) for name in used if name in project.folds}
    refuse_leaks(dict(zip(names, stores, strict=True)), ids, workspace.groups, tables)
    left_out = len(workspace.ids) - len(ids)
    if left_out:
        say(f"{left_out} of {len(workspace.ids)} photos are not out-of-fold for every member and are left out")
    with recorded(project, "tune", members=names, objective=objective, thresholds=[str(least), str(most)]) as run:
        truth = _truth(workspace, {image_id: stores[0].sizes[stores[0].index[image_id]] for image_id in ids}, threads)
        pixels = keep_disputed(stores, ids, truth, least, most, threads=threads, folder=project.root, track=track)
        found = search(pixels, wanted, rounds=rounds, seconds=seconds, seed=seed, track=track)
        tuning = Tuning(
            weights=dict(zip(names, found.best.weights, strict=True)),
            threshold=threshold_text(found.best.threshold),
            images=len(ids),
            scores={"tuned": found.best.score} | {name: setting.score for name, setting in found.settings.items()},
            singles=dict(zip(names, (single.score for single in found.singles), strict=True)),
            fingerprints={name: store.fingerprint() for name, store in zip(names, stores, strict=True)},
            metric=wanted.name,
        )
        run |= {"rounds": len(found.path), "seed": seed, "kept": found.how, "in_time": found.in_time}
    _remark(found, pixels.thresholds, say)
    tuning.write(project.tuning_file)
    return Tuned(project.tuning_file, tuning, left_out)


def _truth(workspace: Workspace, sizes: Mapping[str, Size], threads: int | None) -> TruthCache:
    project, masks = workspace.project, workspace.masks
    assert project.data.masks is not None  # or the masks could not have been opened
    source = source_hash(project.data.masks, project.data.categories, threads)
    path = project.root / "cache" / "masks"
    return cached_truth(path, masks, source, sizes, threads=threads, track=workspace.track)


def _remark(found: Found, thresholds: Sequence[Fraction], say: Say) -> None:
    """Says where more could be had by searching further."""
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
