"""The out-of-fold maps of a project's members, with the masks of their photos decoded once into a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from carvana_ens.engine.cluster import Workers, connected
from carvana_ens.ensemble.disputed import common_ids
from carvana_ens.ensemble.out_of_fold import OutOfFold
from carvana_ens.ensemble.passes import Elsewhere
from carvana_ens.ensemble.truth import TruthCache, cached_truth, source_hash
from carvana_ens.errors import StoreError
from carvana_ens.project import Project
from carvana_ens.store.place import place_of
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Size
from carvana_ens.verbs.versions import installed
from carvana_ens.verbs.workspace import Workspace


def out_of_fold(workspace: Workspace, names: Sequence[str], threads: int | None = None) -> OutOfFold:
    """Opens the stores of these members and reads the masks into ``cache/masks`` of the project.

    Raises:
        StoreError: maps are missing, incomplete, or may have seen their images.
        DataError: a mask that is missing, damaged or of another size than the maps.
    """
    project = workspace.project
    stores = {name: _store(project, name) for name in names}
    known, first = set(workspace.ids), next(iter(stores.values()))
    ids = [image_id for image_id in common_ids(list(stores.values())) if image_id in known]
    seen = {store.provenance.fold_table["name"] for store in stores.values() if store.provenance.fold_table}
    tables = {name: workspace.fold_table(name) for name in sorted(seen) if name in project.folds}
    truth = truth_cache(workspace, {image_id: first.sizes[first.index[image_id]] for image_id in ids}, threads)
    return OutOfFold(stores, truth, truth.source, workspace.groups, tables, project.root, threads, workspace.track)


def truth_cache(workspace: Workspace, sizes: dict[str, Size], threads: int | None = None) -> TruthCache:
    """The project's cache of masks, with those of these photos at these sizes."""
    data, masks = workspace.project.data, workspace.masks
    assert data.masks is not None  # or the masks could not have been opened
    source = source_hash(data.masks, (*data.categories, *filter(None, [data.dialect])), threads)
    path = _masks(workspace.project)
    return cached_truth(path, masks, source, sizes, threads=threads, track=workspace.track)


@contextmanager
def read_by(
    workers: Workers | None, project: Project, maps: OutOfFold, steps: Sequence[str] = ()
) -> Iterator[OutOfFold]:
    """The maps that ``out_of_fold`` opened, to be read by other processes; None: by this one. steps: names of those
    that are to be tried.

    Raises:
        CarvanaEnsError: no workers, or other ones than can be used.
    """
    if workers is None:
        yield maps
        return
    with connected(workers, partial(installed, (), sorted(set(steps)))) as cluster:
        yield replace(maps, elsewhere=Elsewhere(cluster, _masks(project), maps.source))


def _masks(project: Project) -> Path:
    return project.cache / "masks"


def _store(project: Project, name: str) -> ProbabilityStore:
    path = project.store_path(name, "oof")
    if not place_of(path).exists():
        raise StoreError(f"member {name} has no out-of-fold maps ({path} is not there): run predict or import first")
    store = open_store(path)
    store.require_complete()
    if store.provenance.seen == "unknown":
        raise StoreError(
            f"{path}: nobody says that the model behind these maps had not seen the photos; if so, declare it with "
            f"--out-of-fold (import, or add-model --checkpoint) and make the maps again with --fresh"
        )
    return store
