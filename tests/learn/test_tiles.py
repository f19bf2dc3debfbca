from __future__ import annotations

import itertools

import numpy as np
import pytest

from carvana_ens.learn.inference import predict_maps
from carvana_ens.learn.tiles import Tiling, tiling_of
from carvana_ens.model import Batch, MemberConfig, Model
from carvana_ens.types import Size


@pytest.mark.parametrize(
    ("grid", "tile", "overlap"),
    list(
        itertools.product(
            [Size(1, 1), Size(40, 64), Size(41, 97), Size(200, 33)],
            [Size(1, 1), Size(16, 20), Size(33, 64), Size(300, 300)],
            [Size(0, 0), Size(5, 7), Size(15, 15)],
        )
    ),
)
def test_tiles_cover_a_picture_and_their_weights_sum_to_one(grid, tile, overlap):
    overlap = Size(*(min(shared, side - 1) for shared, side in zip(overlap, tile, strict=True)))
    tiling = Tiling(tile, overlap)
    total, starts = np.zeros(grid), set()
    for one in tiling.tiles(grid):
        part = total[one.rows, one.columns]
        assert part.shape == tiling.grid(grid) == one.weights.shape
        assert one.weights.min() > 0
        part += one.weights
        starts.add((one.rows.start, one.columns.start))
    assert total == pytest.approx(1, abs=1e-6)
    for axis in range(2):
        along = sorted({start[axis] for start in starts})
        length = tiling.grid(grid)[axis]
        assert along[0] == 0
        assert along[-1] + length == grid[axis]
        assert all(length - (b - a) >= overlap[axis] for a, b in itertools.pairwise(along))
        least = 1 if length == grid[axis] else -(-(grid[axis] - overlap[axis]) // (length - overlap[axis]))
        assert len(along) == least


def test_neighbours_are_mixed_gradually():
    (_, first), (_, last) = [
        (one, np.pad(one.across, (one.columns.start, 30 - one.columns.stop)))
        for one in Tiling(Size(4, 20), Size(0, 10)).tiles(Size(4, 30))
    ]
    assert first[:10] == pytest.approx(1)
    assert first[20:] == pytest.approx(0)
    assert first[10:20] == pytest.approx((10 - np.arange(10)) / 11)
    assert first + last == pytest.approx(1)


def test_a_members_overlap_is_an_eighth_unless_it_says_so():
    assert tiling_of(MemberConfig(name="m", model="m")) is None
    config = MemberConfig(name="m", model="m", tile=Size(64, 100))
    assert tiling_of(config) == Tiling(Size(64, 100), Size(8, 12))
    config = MemberConfig(name="m", model="m", tile=Size(64, 100), overlap=0)
    assert tiling_of(config) == Tiling(Size(64, 100), Size(0, 0))
    assert MemberConfig.from_json(config.to_json()) == config


class Local(Model):
    """Looks at single pixels. Keeps the grids that it was given."""

    output = "logits"
    size = Size(8, 8)
    batch_size = 2

    def __init__(self, config):
        super().__init__(config)
        self.seen = []

    def predict(self, batch: Batch):
        self.seen.append(batch.images.shape)
        return (batch.images[..., 0] / 40 - batch.images[..., 1] / 50).astype(np.float32)


class Folder:
    def __init__(self, shapes):
        rng = np.random.default_rng(2)
        self.images = {name: rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for name, shape in shapes.items()}

    def read(self, image_id):
        return self.images[image_id]


@pytest.mark.parametrize("tta", [(), ("hflip", "transpose")])
def test_a_pixelwise_model_answers_the_same_in_tiles(tta):
    folder = Folder({"a": (50, 61), "b": (50, 61), "c": (19, 23), "d": (5, 90)})
    model = Local(MemberConfig(name="m", model="m", tile=Size(20, 24)))
    maps = dict(predict_maps([model], folder, list("abcd"), dict.fromkeys("abcd", "g"), tta))
    for name, image in folder.images.items():
        z = model.predict(Batch(image[None], (name,), ("g",)))[0]
        assert maps[name] == pytest.approx(1 / (1 + np.exp(-z.astype(np.float64))), abs=1e-6)
    assert {shape[1:3] for shape in model.seen[:-4]} <= {(20, 24), (24, 20), (19, 23), (20, 19), (5, 24), (20, 5)}


def test_photos_are_brought_to_the_members_own_size_before_they_are_cut():
    folder = Folder({"a": (50, 61)})
    model = Local(MemberConfig(name="m", model="m", size=Size(30, 40), tile=Size(30, 25), overlap=10))
    ((_, values),) = predict_maps([model], folder, ["a"], {"a": "g"}, ())
    assert model.seen == [(1, 30, 25, 3)] * 2
    plain = Local(MemberConfig(name="m", model="m", size=Size(30, 40)))
    ((_, expected),) = predict_maps([plain], folder, ["a"], {"a": "g"}, ())
    assert values == pytest.approx(expected, abs=1e-6)
