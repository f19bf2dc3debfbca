from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.learn.resize import mask_cover, resize_image, resize_map
from carvana_ens.types import Size


def test_mask_cover_is_the_covered_part_of_each_pixel():
    mask = np.random.default_rng(0).random((12, 20)) < 0.5
    expected = mask.reshape(4, 3, 5, 4).mean((1, 3))
    assert mask_cover(mask, Size(4, 5)) == pytest.approx(expected, abs=1e-6)


def test_nothing_changes_on_the_same_grid():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    mask = rng.random((7, 9)) < 0.5
    values = rng.normal(size=(7, 9)).astype(np.float32)
    assert np.array_equal(resize_image(image, Size(7, 9)), image)
    assert np.array_equal(mask_cover(mask, Size(7, 9)), mask)
    assert np.array_equal(resize_map(values, Size(7, 9)), values)


def test_enlarging_a_map_is_half_pixel_bilinear():
    row = np.array([[0.0, 4.0]], dtype=np.float32)
    assert resize_map(row, Size(1, 4)) == pytest.approx(np.array([[0.0, 1.0, 3.0, 4.0]]))


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 30), Size(30, 1), Size(13, 17)])
def test_a_constant_stays_constant_on_any_grid(size):
    image = np.full((5, 8, 3), 77, dtype=np.uint8)
    assert np.array_equal(resize_image(image, size), np.full((*size, 3), 77))
    assert resize_map(np.full((5, 8), -2.5, np.float32), size) == pytest.approx(np.full(size, -2.5), abs=1e-6)
    assert mask_cover(np.ones((5, 8), bool), size) == pytest.approx(np.ones(size), abs=1e-6)
