"""The out-of-fold maps of members with their truth: what is tuned on and reported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from carvana_ens.ensemble.disputed import common_ids
from carvana_ens.ensemble.leaks import refuse_leaks
from carvana_ens.ensemble.truth import TruthCache, cached_truth, source_hash
from carvana_ens.errors import StoreError
from carvana_ens.project import Project
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.verbs.workspace import Workspace


class OutOfFold:
    """Stores of some members, checked against leaks. ids: of the photos that all of them have. left_out: the others."""

    def __init__(self, workspace: Workspace, names: Sequence[str], threads: int | None = None) -> None:
        """Opens the stores.

        Raises:
            StoreError: out-of-fold maps are missing, incomplete, or may have seen their images.
        """
        project = workspace.project
        self.workspace, self.threads = workspace, threads
        self.stores = {name: _store(project, name) for name in names}
        known = set(workspace.ids)
        self.ids = [image_id for image_id in common_ids(list(self.stores.values())) if image_id in known]
        self.left_out = len(workspace.ids) - len(self.ids)
        self.groups = {image_id: workspace.groups[image_id] for image_id in self.ids}
        first = next(iter(self.stores.values()))
        self.sizes = {image_id: first.sizes[first.index[image_id]] for image_id in self.ids}
        seen = {store.provenance.fold_table["name"] for store in self.stores.values() if store.provenance.fold_table}
        self.tables = {name: workspace.fold_table(name) for name in sorted(seen) if name in project.folds}
        refuse_leaks(self.stores, self.ids, workspace.groups, self.tables)

    def only(self, names: Sequence[str]) -> OutOfFold:
        """The same of some of the members."""
        return OutOfFold(self.workspace, names, self.threads)

    @cached_property
    def masks_hash(self) -> str:
        """sha256 (hex) of where the masks come from."""
        data = self.workspace.project.data
        assert data.masks is not None  # or the masks could not have been opened
        return source_hash(data.masks, data.categories, self.threads)

    @cached_property
    def truth(self) -> TruthCache:
        """The masks of the photos, decoded once into the project's cache.

        Raises:
            DataError: a mask that is missing, damaged or of another size than the maps.
        """
        path = self.workspace.project.root / "cache" / "masks"
        masks, track = self.workspace.masks, self.workspace.track
        return cached_truth(path, masks, self.masks_hash, self.sizes, threads=self.threads, track=track)


def _store(project: Project, name: str) -> ProbabilityStore:
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
