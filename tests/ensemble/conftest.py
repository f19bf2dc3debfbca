"""Small stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size


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
