from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from carvana_ens.learn.clahe import equalised_image


def by_opencv(image):
    cv2 = pytest.importorskip("cv2")
    yuv = cv2.cvtColor(image, cv2.COLOR_RGB2YUV)
    yuv[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(np.ascontiguousarray(yuv[..., 0]))
    return cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB)


def drawn(kind, shape):
    rng = np.random.default_rng(len(kind))
    if kind == "noise":
        return rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    if kind == "ramp":
        return (np.indices(shape).sum(0)[..., None] // np.array([1, 2, 3]) % 256).astype(np.uint8)
    dark = rng.normal(40, 6, (*shape, 3)).clip(0, 255)
    dark[shape[0] // 3 :, shape[1] // 2 :] = 250
    return dark.astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "ramp", "scene"])
@pytest.mark.parametrize(
    "shape",
    [(64, 96), (64, 97), (63, 96), (101, 67), (320, 479), (8, 8), (7, 9), (9, 3), (1, 30), (30, 1), (1, 1)],
)
def test_levels_are_those_of_opencv_at_any_size(shape, kind):
    image = drawn(kind, shape)
    before = image.copy()
    got = equalised_image(image)
    assert got.dtype == np.uint8
    assert np.array_equal(got, by_opencv(image))
    assert np.array_equal(image, before)


@pytest.mark.real
@pytest.mark.skipif("CARVANA_ENS_DATA" not in os.environ, reason="CARVANA_ENS_DATA is not set")
def test_levels_of_a_real_photo_are_those_of_opencv():
    photos = sorted(Path(os.environ["CARVANA_ENS_DATA"]).glob("carvana/train_hq/*.jpg"))
    image = np.array(Pillow.open(photos[0]).convert("RGB"))
    got = equalised_image(image)
    assert np.array_equal(got, by_opencv(image))
    assert np.abs(got.astype(int) - image).mean() > 1


def test_a_flat_photo_gets_the_level_that_can_be_counted_by_hand():
    # A tile has 64 pixels of level 100; 63 are over the limit of 1, and one each goes to the levels 0, 4, ..., 248:
    # up to level 100 these are 26, and with the pixel left there 27 of 64.
    image = np.full((64, 64, 3), 100, np.uint8)
    assert np.unique(equalised_image(image)).tolist() == [round(27 * 255 / 64)]


def test_any_layout_in_memory_gives_the_same():
    image = drawn("noise", (40, 50))
    mirrored = equalised_image(image[:, ::-1])
    assert np.array_equal(mirrored, equalised_image(np.ascontiguousarray(image[:, ::-1])))
