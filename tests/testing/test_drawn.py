from __future__ import annotations

import itertools

import numpy as np
import pytest

from carvana_ens.testing.drawn import DrawnSamples, Unreadable, draw_image, draw_mask, draw_photos, drawn_batch
from carvana_ens.types import Size


@pytest.mark.parametrize("size", [Size(64, 96), Size(37, 53), Size(96, 64)])
def test_photos_are_whole_and_differ(size):
    images = [draw_image(number, size) for number in range(6)]
    masks = [draw_mask(number, size) for number in range(6)]
    for image, mask in zip(images, masks, strict=True):
        assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
        assert (mask.shape, mask.dtype) == (size, np.bool_)
        assert 0.05 < mask.mean() < 0.5
        assert mask[1:-1, 1:-1].sum() == mask.sum()
    for one, other in itertools.combinations(range(6), 2):
        assert not np.array_equal(masks[one], masks[other])
        assert abs(images[one].astype(float) - images[other]).mean() > 5
    np.testing.assert_array_equal(images[2], draw_image(2, size))


def test_photos_come_with_their_masks():
    images, masks = draw_photos(3, Size(37, 53))
    for number in range(3):
        np.testing.assert_array_equal(images[number], draw_image(number, Size(37, 53)))
        np.testing.assert_array_equal(masks[number], draw_mask(number, Size(37, 53)))
    assert (len(images), len(masks)) == (3, 3)


def test_a_batch_has_many_cars_or_one():
    assert drawn_batch([0, 2], Size(8, 8)).groups == ("c00", "c02")
    batch = drawn_batch([0, 2], Size(8, 8), car="a")
    assert (batch.ids, batch.group) == (("a_00", "a_02"), "a")


def test_samples_tell_when_they_are_read():
    samples = DrawnSamples(range(4), Size(16, 16))
    assert samples.ids == ("c00_01", "c00_02", "c01_01", "c01_02")
    assert not samples.touched
    np.testing.assert_array_equal(samples.mask("c01_01"), draw_mask(2, Size(16, 16)))
    assert samples.touched
    with pytest.raises(Unreadable):
        DrawnSamples(range(1), Size(16, 16), unreadable=True).image("c00_01")
