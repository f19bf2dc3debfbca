"""Mask files: every value comes back, in the form that any viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures

from carvana_ens.errors import CarvanaEnsError, UsageError
from carvana_ens.output.masks import write_mask


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (64, 37)])
@pytest.mark.parametrize("fill", ["zeros", "ones", "random", "corner"])
def test_a_mask_comes_back(tmp_path: Path, shape: tuple[int, int], fill: str) -> None:
    mask = np.zeros(shape, dtype=np.bool_)
    if fill == "ones":
        mask[:] = True
    elif fill == "random":
        mask = np.random.default_rng(1).random(shape) < 0.5
    elif fill == "corner":
        mask[-1, -1] = True
    path = write_mask(tmp_path / "masks", "a_01", mask)
    assert path == tmp_path / "masks" / "a_01.png"
    assert [entry.name for entry in path.parent.iterdir()] == ["a_01.png"]
    with Pictures.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), np.where(mask, 255, 0))


def test_an_id_with_dots_keeps_them(tmp_path: Path) -> None:
    assert write_mask(tmp_path, "car.v2_01", np.ones((2, 2), dtype=np.bool_)).name == "car.v2_01.png"


def test_a_mask_is_replaced(tmp_path: Path) -> None:
    write_mask(tmp_path, "a", np.zeros((3, 4), dtype=np.bool_))
    path = write_mask(tmp_path, "a", np.ones((2, 2), dtype=np.bool_))
    with Pictures.open(path) as picture:
        assert picture.size == (2, 2)


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), dtype=np.uint8), np.zeros((2, 2, 1), dtype=np.bool_), np.zeros((0, 4), dtype=np.bool_)]
)
def test_other_arrays_are_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(UsageError, match="mask of image 'a'"):
        write_mask(tmp_path, "a", mask)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(CarvanaEnsError, match=r"a\.png cannot be written"):
        write_mask(tmp_path, "a", np.ones((2, 2), dtype=np.bool_))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
