from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image as Pillow

from carvana_ens.errors import UsageError
from carvana_ens.learn.inference import predict_maps
from carvana_ens.learn.views import View, flipped, unflipped, views_of
from carvana_ens.model import TTA, Batch, MemberConfig, Model
from carvana_ens.types import Size


@pytest.mark.parametrize(
    ("tta", "expected"),
    [
        ((), [(1.0, ())]),
        (("hflip",), [(1.0, ()), (1.0, ("hflip",))]),
        (("x0.5",), [(1.0, ()), (0.5, ())]),
        (
            ("vflip", "x1.25", "x0.75"),
            [(scale, flips) for scale in (1.0, 1.25, 0.75) for flips in ((), ("vflip",))],
        ),
    ],
)
def test_views(tta, expected):
    assert [(view.scale, view.flips) for view in views_of(tta)] == expected


@pytest.mark.parametrize(
    ("tta", "fault"),
    [
        (("rot90",), "'rot90' is unknown: use hflip, vflip, transpose, or a scale such as x0.75"),
        (("x1",), "'x1' is unknown"),
        (("x0.05",), "'x0.05' is unknown"),
        (("x9",), "'x9' is unknown"),
        (("hflip", "x0.5", "x0.5"), "'x0.5' is there twice"),
    ],
)
def test_what_is_no_augmentation(tta, fault):
    with pytest.raises(UsageError, match=fault):
        views_of(tta)


def test_all_flips_are_the_eight_symmetries_of_a_square_and_are_undone():
    image = np.arange(12 * 12 * 3, dtype=np.int32).reshape(1, 12, 12, 3)
    turned = [flipped(image, view.flips, 1) for view in views_of(TTA)]
    rotated = [np.rot90(side, k, (1, 2)) for side in (image, image.swapaxes(1, 2)) for k in range(4)]
    assert all(sum(np.array_equal(one, other) for other in turned) == 1 for one in rotated)
    wide = np.arange(5 * 7).reshape(5, 7)
    for count in range(4):
        for names in itertools.permutations(TTA, count):
            there = flipped(wide, names, 0)
            assert there.shape == ((7, 5) if "transpose" in names else (5, 7))
            assert there.flags.c_contiguous
            assert np.array_equal(unflipped(there, names, 0), wide)


def test_a_scaled_grid_is_rounded_and_never_empty():
    assert View(0.75).grid(Size(10, 11)) == (8, 8)
    assert View(0.1).grid(Size(4, 100)) == (1, 10)


class Shape(Model):
    """Answers by brightness, place and the size of the grid."""

    output = "logits"

    def predict(self, batch: Batch):
        _, height, width, _ = batch.images.shape
        place = np.linspace(-1, 1, height)[:, None] - 2 * np.linspace(-1, 1, width)
        return (batch.images[..., 0] / 40 - 3 + place + height / 10).astype(np.float32)


def resized(values, size):
    return np.asarray(Pillow.fromarray(values).resize((size[1], size[0]), Pillow.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [None, Size(18, 20)])
def test_scales_and_transposed_views_written_out(size):
    image = np.random.default_rng(5).integers(0, 256, (21, 31, 3), dtype=np.uint8)

    class Folder:
        def read(self, image_id):
            return image

    model = Shape(MemberConfig(name="m", model="m", size=size))
    ((_, got),) = predict_maps([model], Folder(), ["a"], {"a": "g"}, ("transpose", "x0.5"))
    grid = size or Size(21, 31)
    total = np.zeros(grid)
    for scale in (1, 0.5):
        own = (round(grid.height * scale), round(grid.width * scale))
        inputs = resized(image, own)
        for turned in (False, True):
            seen = inputs.swapaxes(0, 1) if turned else inputs
            z = model.predict(Batch(seen[None], ("a",), ("g",)))[0]
            total += resized(np.ascontiguousarray(z.T if turned else z), grid)
    z = resized((total / 4).astype(np.float32), (21, 31))
    assert got == pytest.approx(1 / (1 + np.exp(-z.astype(np.float64))), abs=2e-6)
