"""tune: blend weights and threshold on out-of-fold maps, into tuning.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.ensemble.greedy import best_level, best_score, common_ids, greedy_selection, mean_curves
from carvana_ens.ensemble.tuning import Tuning
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Say, Track, unsaid, untracked
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
    rounds: int = 20,
    say: Say = unsaid,
    track: Track = untracked,
) -> Tuned:
    """Finds weights by greedy selection and the best exact threshold, both on out-of-fold maps.

    The best of greedy selection, equal weights and the best single member is kept, so none of the three scores more
    on these maps. What it scores is what it was tuned on, not an honest estimate.

    Raises:
        UsageError: unknown member, or rounds under 1.
        StoreError: out-of-fold maps are missing, incomplete, or may have seen their images.
    """
    if rounds < 1:
        raise UsageError(f"--rounds takes a whole number from 1, got {rounds}")
    names = [config.name for config in project.select(members)]
    stores = [_out_of_fold_store(project, name) for name in names]
    workspace = Workspace(project, say, track)
    known = set(workspace.ids)
    ids = [image_id for image_id in common_ids(stores) if image_id in known]
    left_out = len(workspace.ids) - len(ids)
    if left_out:
        say(f"{left_out} of {len(workspace.ids)} photos are not out-of-fold for every member and are left out")
    truth = workspace.masks.read
    with recorded(project, "tune", members=names) as run:
        selection = greedy_selection(
            stores, ids, truth, rounds, lambda some, number: track(some, len(some), f"round {number + 1} of {rounds}")
        )
        ones = [1] * len(stores)
        single = [[int(place == index) for place in range(len(stores))] for index in range(len(stores))]
        (equal,) = mean_curves(stores, track(ids, len(ids), "equal weights"), truth, [ones])
        singles = dict(zip(names, map(best_score, selection.singles), strict=True))
        weights, curve = list(selection.weights), selection.curve
        for candidate, other in zip([ones, *single], [equal, *selection.singles], strict=True):
            if best_score(other) > best_score(curve):
                weights, curve = candidate, other
        level = best_level(curve)
        tuning = Tuning(
            weights=dict(zip(names, weights, strict=True)),
            threshold=f"{level}/{len(curve)}",
            images=len(ids),
            scores={
                "tuned": best_score(curve),
                "equal": best_score(equal),
                "best single": max(singles.values()),
            },
            singles=singles,
            fingerprints={name: store.fingerprint() for name, store in zip(names, stores, strict=True)},
        )
        run |= {"rounds": len(selection.path)}
    tuning.write(project.tuning_file)
    return Tuned(project.tuning_file, tuning, left_out)


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
