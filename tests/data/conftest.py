from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array as a picture of the given name, with Pillow's own options."""

    def write(name: str, array: np.ndarray, **options: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(array).save(path, **options)
        return path

    return write


@pytest.fixture
def real() -> Path:
    """The folder of real photos."""
    folder = os.environ.get("CARVANA_ENS_DATA")
    if not folder:
        pytest.skip("CARVANA_ENS_DATA is not set: there are no real photos to test on")
    return Path(folder)


@pytest.fixture
def photo() -> np.ndarray:
    """(20, 30, 3) uint8: no two rows or columns alike, so that a turn or a shift shows."""
    return np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
