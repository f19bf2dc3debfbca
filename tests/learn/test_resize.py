from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.errors import DataError
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.resize import SQUASH, Padding, input_rule, map_back, mask_cover, resize_image, resize_map
from carvana_ens.model import MemberConfig, Model
from carvana_ens.types import Size

FILLS = ("zero", "edge", "reflect")


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


def source(place, side, fill):
    """Where a pixel at ``place`` from the photo's first one comes from; None: black."""
    if 0 <= place < side:
        return place
    if fill == "zero":
        return None
    if fill == "edge":
        return min(max(place, 0), side - 1)
    return -place if place < 0 else 2 * (side - 1) - place


def slowly_padded(array, grid, before, fill):
    padded = np.zeros((*grid, *array.shape[2:]), array.dtype)
    for y, x in np.ndindex(*grid):
        row, column = source(y - before[0], array.shape[0], fill), source(x - before[1], array.shape[1], fill)
        if row is not None and column is not None:
            padded[y, x] = array[row, column]
    return padded


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(
    ("sides", "photo", "grid", "margins"),
    [
        ("after", (7, 9), Size(8, 12), ((0, 1), (0, 3))),
        ("both", (7, 9), Size(8, 12), ((0, 1), (1, 2))),
        ("both", (7, 10), Size(11, 28), ((2, 2), (9, 9))),
        ("after", (7, 10), Size(13, 10), ((0, 6), (0, 0))),
        ("both", (5, 6), Size(5, 6), ((0, 0), (0, 0))),
    ],
)
def test_padding_is_that_of_numpy_and_of_a_slow_twin_and_is_cropped_back(fill, sides, photo, grid, margins):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (*photo, 3), dtype=np.uint8)
    mask = rng.random(photo) < 0.5
    padding = Padding(fill, sides)
    mode = {"zero": "constant"}.get(fill, fill)
    before = [margin[0] for margin in margins]

    padded = padding.image(image, grid, "a")
    assert padded.dtype == np.uint8
    np.testing.assert_array_equal(padded, np.pad(image, (*margins, (0, 0)), mode))
    np.testing.assert_array_equal(padded, slowly_padded(image, grid, before, fill))
    cover = padding.cover(mask, grid)
    assert cover.dtype == np.float32
    np.testing.assert_array_equal(cover, np.pad(mask.astype(np.float32), margins, mode))
    np.testing.assert_array_equal(cover, slowly_padded(mask, grid, before, fill))

    values = rng.normal(size=grid).astype(np.float32)
    (above, _), (left, _) = margins
    back = map_back(values, Size(*photo), padding)
    np.testing.assert_array_equal(back, values[above:, left:][: photo[0], : photo[1]])
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(map_back(padded[..., 0].astype(np.float32), Size(*photo), padding), image[..., 0])


def test_1918_columns_become_1920_as_each_of_three_authors_did_it():
    image = np.random.default_rng(2).integers(1, 256, (1280, 1918, 3), dtype=np.uint8)
    for padding, inside, left, right in (
        (Padding("zero", "after", 32), slice(0, 1918), image[:, 0], 0 * image[:, :2]),
        (Padding("reflect", "both", 32), slice(1, -1), image[:, 1], image[:, [-1, -2]]),
        (Padding("edge", "after", 64), slice(0, 1918), image[:, 0], image[:, [-1, -1]]),
    ):
        grid = padding.grid(Size(1280, 1918))
        padded = padding.image(image, grid, "a")
        assert grid == padded.shape[:2] == (1280, 1920)
        np.testing.assert_array_equal(padded[:, inside], image)
        np.testing.assert_array_equal(padded[:, 0], left)
        np.testing.assert_array_equal(padded[:, -2:], right)
        values = padded[..., 1].astype(np.float32)
        np.testing.assert_array_equal(map_back(values, Size(1280, 1918), padding), image[..., 1])


@pytest.mark.parametrize(
    ("multiple", "size", "expected"),
    [(1, (37, 53), (37, 53)), (32, (1280, 1918), (1280, 1920)), (64, (1, 65), (64, 128)), (32, (64, 32), (64, 32))],
)
def test_a_padded_grid_is_the_next_multiple(multiple, size, expected):
    assert Padding("zero", "after", multiple).grid(Size(*size)) == Size(*expected)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("grid", [Size(19, 40), Size(40, 29), Size(19, 29)])
def test_a_photo_larger_than_the_grid_is_refused(fill, grid):
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(DataError, match=rf"car_07 is 20x30, larger than the input size {grid}.*of 20x30 or more"):
        Padding(fill, "after").image(image, grid, "car_07")


@pytest.mark.parametrize(
    ("sides", "photo", "most"),
    [("after", (5, 8), (9, 15)), ("both", (5, 8), (13, 22)), ("after", (1, 8), (1, 15)), ("both", (1, 8), (1, 22))],
)
def test_mirrors_reach_no_further_than_the_photo_itself(sides, photo, most):
    image = np.zeros((*photo, 3), np.uint8)
    padding = Padding("reflect", sides)
    assert padding.image(image, Size(*most), "car_07").shape[:2] == most
    for more in ((most[0] + 1, most[1]), (most[0], most[1] + 1)):
        with pytest.raises(DataError, match=r"car_07 is .*too small to be mirrored out to .*pad=edge"):
            padding.image(image, Size(*more), "car_07")


class Network(Model):
    Options = TorchOptions
    size = Size(64, 64)
    divisor = 8


@pytest.mark.parametrize("size", [None, Size(128, 192)])
def test_the_options_choose_the_way_to_the_grid(size):
    def rule(cls, **options):
        return input_rule(cls(MemberConfig(name="m", model="m", size=size, options=options)))

    assert rule(Network) == (size or Size(64, 64), SQUASH)
    assert rule(Network, pad="edge") == (size, Padding("edge", "after", 8))
    assert rule(Network, pad="reflect", pad_sides="both") == (size, Padding("reflect", "both", 8))
    assert rule(Model) == (size, SQUASH)  # a model without the recipe's options
