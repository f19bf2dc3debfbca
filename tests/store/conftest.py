from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carvana_ens.store.schema import Provenance
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

IDS = ("a_01", "a_02", "b_01", "007")
SIZES = (Size(30, 41), Size(30, 41), Size(25, 40), Size(1, 1))


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(member={"name": "m", "model": "x"}, split="test", seen="none")


@pytest.fixture
def codes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    maps = {i: rng.integers(0, 256, size, dtype=np.uint8) for i, size in zip(IDS, SIZES, strict=True)}
    maps["a_02"][:] = 0  # an all-zero map is a map, not a hole
    return maps


@pytest.fixture
def stored(tmp_path: Path, provenance: Provenance, codes: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "m" / "test.zarr"
    with StoreWriter(path, IDS, SIZES, provenance) as writer:
        for image_id in reversed(IDS):
            writer.write_codes(image_id, codes[image_id])
    return path
