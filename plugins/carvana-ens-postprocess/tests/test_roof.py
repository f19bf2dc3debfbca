"""The repair of an unreliable roof: planted ones are found, and the rest is left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from carvana_ens_postprocess import Box, RoofRepair, hull_of
from skimage.morphology import convex_hull_image

from carvana_ens import Size

STEP = RoofRepair(member="albu", erode=3, area=300, grow=6)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An image with maps in memory, which remembers what was read."""

    maps: dict[str, np.ndarray]
    weights: dict[str, int]
    read: list[str] = dataclasses.field(default_factory=list)
    id: str = "car_01"

    @property
    def size(self):
        return Size(*next(iter(self.maps.values())).shape)

    @property
    def members(self):
        return tuple(sorted(self.maps))

    def codes(self, member):
        self.read.append(member)
        return self.maps[member].copy()


def car(doubt=120, size=(120, 160)):
    """Codes of a car whose roof, rows 20 to 44 and columns 50 to 109, is in doubt."""
    codes = np.zeros(size, np.uint8)
    codes[45:100, 20:140] = 255
    codes[20:45, 50:110] = doubt
    return codes


def image(*maps, weights=None):
    names = ["albu", "ternaus", "vgg", "scratch"][: len(maps)]
    return Drawn(dict(zip(names, maps, strict=True)), weights or dict.fromkeys(names, 1))


def test_a_planted_roof_is_found_and_filled():
    codes = car()
    codes[45:60, 75:85] = 100  # in doubt, too, but under the roof
    assert STEP.unreliable(codes) == Box(17, 66, 44, 116)
    mask = codes > 127
    found = STEP.apply(mask, image(codes))
    outside = np.ones(codes.shape, bool)
    outside[17:66, 44:116] = False
    np.testing.assert_array_equal(found[outside], mask[outside])
    np.testing.assert_array_equal(found[17:66, 44:116], convex_hull_image(codes[17:66, 44:116] > 55))
    assert found[20:45, 50:110].all()
    assert not mask[20:45, 50:110].any()


def test_the_area_is_measured_after_erosion_within_the_outline():
    codes = car()
    # 25 x 60 pixels lose 3 rows, and the outline runs through the middle of those at the border
    enclosed = (25 - 3 - 1) * (60 - 1)
    assert STEP.unreliable(codes) is not None
    assert dataclasses.replace(STEP, area=enclosed - 1).unreliable(codes) is not None
    assert dataclasses.replace(STEP, area=enclosed).unreliable(codes) is None


@pytest.mark.parametrize(("doubt", "fires"), [(30, False), (31, True), (209, True), (210, False), (0, False)])
def test_codes_in_doubt_are_strictly_between(doubt, fires):
    assert (STEP.unreliable(car(doubt)) is not None) == fires


def test_the_lower_half_does_not_count():
    codes = car(255)
    codes[60:110, 20:140] = 120
    assert STEP.unreliable(codes) is None
    codes[59] = 120
    assert dataclasses.replace(STEP, area=0, erode=0).unreliable(codes) is None  # one row encloses nothing
    codes[58] = 120
    assert dataclasses.replace(STEP, area=0, erode=0).unreliable(codes) == Box(52, 66, 0, 160)


def test_the_erosion_takes_rows_off_the_upper_edges_only():
    codes = np.zeros((120, 160), np.uint8)
    codes[10:50, 30:90] = 100
    step = dataclasses.replace(STEP, grow=0)
    for rows in (0, 1, 10, 20):
        assert dataclasses.replace(step, erode=rows).unreliable(codes) == Box(10 + rows, 50, 30, 90)
    assert dataclasses.replace(step, erode=40).unreliable(codes) is None
    codes[0:50] = 0
    codes[0:20, 30:90] = 100  # beyond the image nothing is known that could take rows away
    assert dataclasses.replace(step, erode=10).unreliable(codes) == Box(0, 20, 30, 90)


def test_boxes_at_the_edges_of_the_image():
    codes = np.zeros((120, 160), np.uint8)
    codes[20:50, 2:60] = 100
    assert STEP.unreliable(codes) == Box(17, 56, 0, 70)  # as wide as if it had not been cut at the left
    codes = codes[:, ::-1].copy()
    assert STEP.unreliable(codes) == Box(17, 56, 94, 160)
    codes[2:50, 100:158] = 100
    box = STEP.unreliable(codes)
    assert (box.top, box.bottom) == (0, 0)  # begins above the image
    mask = codes > 127
    np.testing.assert_array_equal(STEP.apply(mask, image(codes)), mask)


def test_nothing_to_fill_with_leaves_the_mask():
    codes = np.minimum(car(), 55)
    mask = np.zeros(codes.shape, bool)
    mask[30, 60] = True
    assert STEP.unreliable(codes) is not None
    np.testing.assert_array_equal(STEP.apply(mask, image(codes)), mask)


def test_a_sound_roof_is_left_as_it_is():
    codes, other = car(255), car(100)
    mask = np.random.default_rng(0).random(codes.shape) < 0.5
    mask.flags.writeable = False
    shown = image(codes, other)
    np.testing.assert_array_equal(STEP.apply(mask, shown), mask)
    assert shown.read == ["albu"]
    over = dataclasses.replace(STEP, outside="over-127")
    np.testing.assert_array_equal(over.apply(mask, shown), mask)


def test_outside_the_box_as_theirs():
    codes, other = car(), car()
    codes[80, 50:54], other[80, 50:54] = (127, 127, 128, 127), (127, 128, 127, 126)
    step = dataclasses.replace(STEP, outside="over-127")
    found = step.apply(np.zeros(codes.shape, bool), image(codes, other))
    assert found[80, 50:54].tolist() == [False, True, True, False]
    weighted = step.apply(np.zeros(codes.shape, bool), image(codes, other, weights={"albu": 3, "ternaus": 1}))
    assert weighted[80, 50:54].tolist() == [False, True, True, False]
    assert found[45:100, 20:140].sum() == 55 * 120 - 2


def test_the_member_is_the_one_with_the_most_weight_unless_named():
    bad, good = car(), car(255)
    mask = bad > 127
    plain = dataclasses.replace(STEP, member="")
    assert plain.reads() == ()
    assert STEP.reads() == ("albu",)
    for weights, chosen in [((1, 1), "albu"), ((1, 2), "ternaus"), ((2, 1), "albu")]:
        shown = image(good, bad, weights=dict(zip(("albu", "ternaus"), weights, strict=True)))
        found = plain.apply(mask, shown)
        assert shown.read == [chosen]
        assert found[20:45, 50:110].all() == (chosen == "ternaus")


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 50)])
@pytest.mark.parametrize("level", [0, 120, 255])
def test_small_images(size, level):
    codes = np.full(size, level, np.uint8)
    step = dataclasses.replace(STEP, area=0, grow=1)
    mask = np.full(size, True)
    assert step.apply(mask, image(codes)).shape == size


def test_the_hull_is_of_the_largest_outline():
    mask = np.zeros((30, 40), bool)
    mask[2:6, 2:6] = mask[10:25, 12:14] = mask[22:25, 12:30] = True
    alone = mask.copy()
    alone[2:6, 2:6] = False
    hull = hull_of(mask)
    assert (hull >= alone).all()
    assert np.count_nonzero(hull != convex_hull_image(alone)) <= 15  # drawn lines differ along the slope
    assert not hull[2:6, 2:6].any()
    assert hull_of(np.zeros((4, 5), bool)) is None
