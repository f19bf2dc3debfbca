from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.errors import DataError
from carvana_ens.learn import photos as photos_module
from carvana_ens.learn.photos import Photos
from carvana_ens.learn.resize import Padding, mask_cover, resize_image
from carvana_ens.types import Size


class Drawn:
    """Noise with a random mask, each photo of its own size."""

    def __init__(self, **shapes):
        self.ids = list(shapes)
        self.shapes = shapes
        self.read = []

    def image(self, image_id):
        self.read.append(image_id)
        return self._rng(image_id).integers(0, 256, (*self.shapes[image_id], 3), dtype=np.uint8)

    def mask(self, image_id):
        return self._rng(image_id).random(self.shapes[image_id]) < 0.4

    def _rng(self, image_id):
        return np.random.default_rng(self.ids.index(image_id))


def one_by_one(photos):
    chunks = [[number] for number in range(len(photos))]
    return [(images[0].numpy(), covers[0, 0].numpy()) for images, covers in photos.batches(chunks)]


def test_photos_and_masks_are_resized_to_the_grid():
    drawn = Drawn(a=(20, 30), b=(9, 50))
    photos = Photos(drawn, Size(8, 16))
    for image_id, (image, cover) in zip(drawn.ids, one_by_one(photos), strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), resize_image(drawn.image(image_id), Size(8, 16)))
        assert np.array_equal(cover, np.rint(mask_cover(drawn.mask(image_id), Size(8, 16)) * 255))


@pytest.mark.parametrize("size", [None, Size(18, 40)])
@pytest.mark.parametrize(
    ("fill", "sides", "mode"),
    [("zero", "after", "constant"), ("edge", "after", "edge"), ("reflect", "both", "reflect")],
)
def test_photos_and_masks_are_padded_alike_and_keep_their_pixels(size, fill, sides, mode):
    drawn = Drawn(a=(20, 30), b=(17, 27))
    photos = Photos(drawn, size, Padding(fill, sides, 8))
    grid = (24, 40) if size else (24, 32)
    assert photos.size == grid
    for image_id, (image, cover) in zip(drawn.ids, one_by_one(photos), strict=True):
        added = [whole - own for whole, own in zip(grid, drawn.shapes[image_id], strict=True)]
        margins = [(0, n) if sides == "after" else (n // 2, n - n // 2) for n in added]
        expected = np.pad(drawn.image(image_id), [*margins, (0, 0)], mode)
        assert np.array_equal(image.transpose(1, 2, 0), expected)
        assert np.array_equal(cover, np.pad(drawn.mask(image_id), margins, mode) * 255)
        assert cover.dtype == np.uint8


def test_padded_photos_are_kept_in_memory_where_they_fit(monkeypatch):
    drawn, padding = Drawn(a=(20, 30), b=(17, 27)), Padding("reflect", "both", 8)
    first = None
    for most, reads in ((2 * 24 * 32 * 4, 2), (2 * 24 * 32 * 4 - 1, 4)):
        monkeypatch.setattr(photos_module, "CACHE_BYTES", most)
        photos, drawn.read = Photos(drawn, Size(24, 32), padding), []
        for _ in range(2):
            layers = np.stack([np.concatenate([image, cover[None]]) for image, cover in one_by_one(photos)])
            first = layers if first is None else first
            assert np.array_equal(layers, first)
        assert len(drawn.read) == reads


def test_photos_that_come_to_two_grids_need_an_input_size():
    drawn = Drawn(a=(20, 30), b=(20, 33))
    with pytest.raises(DataError, match="photo b is 20x33, a is 20x30: give the member an input size"):
        one_by_one(Photos(drawn, None, Padding("zero", "after", 8)))
    with pytest.raises(DataError, match="photo b is 20x33, a is 20x30"):
        one_by_one(Photos(drawn, None))
    assert len(one_by_one(Photos(drawn, Size(24, 40), Padding("zero", "after", 8)))) == 2


def test_photos_that_cannot_be_padded_are_refused_by_name():
    drawn = Drawn(a=(20, 30), b=(20, 33))
    with pytest.raises(DataError, match="photo b is 20x33, larger than the input size 24x32"):
        one_by_one(Photos(drawn, Size(20, 32), Padding("zero", "after", 8)))
    with pytest.raises(DataError, match="photo a is 20x30, too small to be mirrored out to 48x64"):
        one_by_one(Photos(drawn, Size(48, 64), Padding("reflect", "after", 8)))
