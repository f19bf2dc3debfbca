"""Small stores, on disk and in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size


class Memory:
    """The maps of a member as a store gives them, from memory; all uint8 or all uint16."""

    def __init__(self, maps: dict[str, np.ndarray]) -> None:
        self.maps, self.ids = maps, tuple(maps)
        self.sizes = tuple(Size(*codes.shape) for codes in maps.values())
        self.index = {image_id: number for number, image_id in enumerate(maps)}
        self.full_scale = int(np.iinfo(next(iter(maps.values())).dtype).max)

    def begin(self, image_id: str, out: np.ndarray) -> Callable[[], None]:
        return lambda: self.read_into(image_id, out)

    def read_into(self, image_id: str, out: np.ndarray) -> None:
        out[:] = self.maps[image_id]


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., ProbabilityStore]:
    """Makes a store of maps by image id, all uint8 or all uint16; ``leave`` are ids that get no map."""

    def make(
        name: str, maps: dict[str, np.ndarray], leave: tuple[str, ...] = (), **provenance: object
    ) -> ProbabilityStore:
        said = Provenance(**{"member": {"name": name}, "split": "oof", "seen": "none", **provenance})
        sizes = [Size(*codes.shape) for codes in maps.values()]
        dtype = str(next(iter(maps.values())).dtype)
        with StoreWriter(tmp_path / f"{name}.zarr", tuple(maps), sizes, said, dtype) as writer:
            for image_id, codes in maps.items():
                if image_id not in leave:
                    writer.write_codes(image_id, codes)
        return open_store(tmp_path / f"{name}.zarr")

    return make
