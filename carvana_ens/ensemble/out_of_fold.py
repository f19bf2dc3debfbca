"""What weights are tuned on: out-of-fold maps of members, the truth of their images, and who belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carvana_ens.data.folds import FoldTable
from carvana_ens.ensemble.disputed import common_ids
from carvana_ens.ensemble.leaks import refuse_leaks
from carvana_ens.ensemble.passes import Elsewhere
from carvana_ens.ensemble.truth import Truth
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Size, Track, untracked


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold maps.

    stores: by member. truth: the masks, of all images at least; called from threads. source: the hash of what the
    masks come from. groups: of every training photo, those without maps too. tables: the fold tables that stores name,
    by name. folder: where what does not fit into memory is spilled, None for the system's. threads: None for as many as
    there are processors. elsewhere: workers that read the maps in place of this process.
    """

    stores: Mapping[str, ProbabilityStore]
    truth: Truth
    source: str
    groups: Mapping[str, str]
    tables: Mapping[str, FoldTable]
    folder: Path | None = None
    threads: int | None = None
    track: Track = untracked
    elsewhere: Elsewhere | None = None

    def __post_init__(self) -> None:
        """Refuses maps by models that saw their images.

        Raises:
            StoreError: names the store and the images.
        """
        refuse_leaks(self.stores, self.ids, self.groups, self.tables)

    @property
    def ids(self) -> list[str]:
        """The images that all members have a map of, and a group."""
        return [image_id for image_id in common_ids(list(self.stores.values())) if image_id in self.groups]

    @property
    def own_groups(self) -> dict[str, str]:
        """The group of each of ``ids``."""
        return {image_id: self.groups[image_id] for image_id in self.ids}

    @property
    def sizes(self) -> dict[str, Size]:
        """The true size of each of ``ids``."""
        first = next(iter(self.stores.values()))
        return {image_id: first.sizes[first.index[image_id]] for image_id in self.ids}

    def only(self, names: Sequence[str]) -> OutOfFold:
        """The same of some of the members."""
        return replace(self, stores={name: self.stores[name] for name in names})
