"""Rims of cutouts: where they are soft, and the object's colour there, on objects whose true opacity is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("pymatting")

from scipy import ndimage

from carvana_ens.errors import DataError, UsageError
from carvana_ens.output.rims import REACH, RIM, SURE, check_installed, clean_colours, object_box, rim_alpha

SIZE = (90, 140)


def covered(size=SIZE, fine=8, radius=(30, 45)):
    """(H, W) the part of each pixel that an ellipse covers, from fine x fine points a pixel."""
    y, x = (np.indices((size[0] * fine, size[1] * fine)) + 0.5) / fine
    inside = ((y - size[0] / 2) / radius[0]) ** 2 + ((x - size[1] / 2) / radius[1]) ** 2 <= 1
    return inside.reshape(size[0], fine, size[1], fine).mean(axis=(1, 3)).astype(np.float32)


def scene(size=SIZE):
    """A photo of an ellipse of slowly changing colour on a bright ground: (photo, opacity, object, ground)."""
    y, x = np.indices(size)
    thing = np.dstack([40 + x * 0.5, 60 + y * 0.6, np.full(size, 30)])
    ground = np.dstack([np.full(size, 230), 240 - x * 0.3, 220 - y * 0.2])
    part = covered(size)
    photo = np.rint(part[..., None] * thing + (1 - part[..., None]) * ground).astype(np.uint8)
    return photo, part, thing, ground


def on(colours, alpha, ground):
    share = alpha[..., None] / 255
    return share * colours + (1 - share) * ground


def test_a_wide_ramp_is_steepened_to_the_distance_from_the_cut():
    distance = np.tile(np.arange(61) - 30 + 0.5, (20, 1))
    levels = np.clip(0.5 + distance / 40, 0, 1).astype(np.float32)
    expected = 127.5 + 127.5 * np.clip(distance / RIM, -1, 1)
    assert np.abs(rim_alpha(levels, 0.5, levels >= 0.5) - expected).max() <= 1


@pytest.mark.parametrize("cut", [0.5, 0.3, 0.75])
def test_a_narrow_ramp_is_as_the_members_have_it(cut):
    levels = np.tile(np.array([0, 0, 0, 0, 0, 0.2, 0.6, 0.95, 1, 1, 1, 1, 1], np.float32), (20, 1))
    ways = np.where(levels[0] >= cut, (levels[0] - cut) / (1 - cut), (levels[0] - cut) / cut)
    alpha = rim_alpha(levels, cut, levels >= cut)
    assert np.abs(alpha - np.clip(127.5 + 127.5 * ways / SURE, 0, 255)).max() <= 1
    assert ((alpha > 0) & (alpha < 255)).any()


def test_where_members_are_sure_the_rim_is_hard():
    mask = covered() >= 0.5
    alpha = rim_alpha(mask.astype(np.float32), 0.5, mask)
    assert np.array_equal(alpha, np.where(mask, 255, 0))


@pytest.mark.parametrize("blur", [0.7, 2, 6])
def test_soft_pixels_lie_along_the_outline_and_the_mask_holds(blur):
    levels = ndimage.gaussian_filter(covered(), blur)
    mask = levels >= 0.5
    alpha = rim_alpha(levels, 0.5, mask)
    soft = (alpha > 0) & (alpha < 255)
    assert np.array_equal(alpha >= 128, mask)
    for pixel in np.argwhere(soft):
        others = np.argwhere(mask != mask[tuple(pixel)])
        assert np.hypot(*(others - pixel).T).min() <= RIM
    assert soft.sum() > 100
    outside = ndimage.distance_transform_edt(~mask)
    assert (alpha[outside > RIM] == 0).all()


@pytest.mark.parametrize(
    ("low", "expected"),
    [
        (0.6, "hard"),  # members doubt, but all of it is object
        (0.45, "hard"),  # under the cut, and nowhere surely outside: the hole that the mask has, not a soft one
        (0.0, "soft"),  # a hole indeed: its rim is a rim
    ],
)
def test_no_soft_hole_inside(low, expected):
    y, x = np.indices(SIZE)
    dent = np.exp(-((y - 45) ** 2 + (x - 70) ** 2) / (2 * 4.0**2))
    levels = (covered() * (1 - (1 - low) * np.minimum(1, 1.5 * dent))).astype(np.float32)
    mask = levels >= 0.5
    alpha = rim_alpha(levels, 0.5, mask)
    inside = (slice(30, 60), slice(50, 90))
    soft = (alpha[inside] > 0) & (alpha[inside] < 255)
    assert soft.any() == (expected == "soft")
    assert np.array_equal(alpha >= 128, mask)
    if expected == "soft":
        assert alpha[45, 70] == 0


def test_specks_without_a_sure_inside_are_hard():
    levels = covered()
    levels[5:8, 5:8] = 0.55
    alpha = rim_alpha(levels, 0.5, levels >= 0.5)
    assert (alpha[5:8, 5:8] == 255).all()
    assert alpha[:12, :12].sum() == 9 * 255


def test_where_post_processing_changed_the_mask_it_is_hard():
    levels = ndimage.gaussian_filter(covered(), 1.5)
    hole, speck = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    hole[40:50, 60:75] = True
    speck[3:12, 3:12] = True
    levels = np.where(hole, 0, levels)
    levels = ndimage.gaussian_filter(np.where(speck, 1, levels), 1).astype(np.float32)
    raw = levels >= 0.5
    assert raw[7, 7]
    assert not raw[45, 67]
    mask = ndimage.binary_fill_holes(raw)
    mask[:15, :15] = False
    alpha = rim_alpha(levels, 0.5, mask)
    assert (alpha[35:55, 55:80] == 255).all()
    assert (alpha[:15, :15] == 0).all()


def test_a_thin_thing_stays_whole():
    """An aerial of two pixels, which members see blurred, on a saddle of its slope."""
    sharp = np.zeros(SIZE, np.float32)
    sharp[40:80, 30:110] = 1
    sharp[10:40, 70:72] = 1
    sharp[24:26, 40:100] = 1
    levels = ndimage.gaussian_filter(sharp, 0.8)
    alpha = rim_alpha(levels, 0.3, levels >= 0.3)
    assert (alpha[12:40, 70:72] >= 128).all()
    column = alpha[12:40, 68:74].max(axis=1)
    assert column.min() > 200


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3)])
@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_small_and_plain_photos(size, value):
    levels = np.full(size, value, np.float32)
    mask = levels >= 0.5
    alpha = rim_alpha(levels, 0.5, mask)
    assert np.array_equal(alpha, np.where(mask, 255, 0))
    photo = np.full((*size, 3), 77, np.uint8)
    assert np.array_equal(clean_colours(photo, alpha), photo if value >= 0.5 else np.zeros_like(photo))


def test_one_row_with_an_edge():
    levels = np.clip(np.arange(-20, 20)[None] / 10 + 0.5, 0, 1).astype(np.float32)
    alpha = rim_alpha(levels, 0.5, levels >= 0.5)
    assert np.array_equal(np.sort(alpha[0]), alpha[0])
    assert (alpha[0, 0], alpha[0, -1]) == (0, 255)
    assert clean_colours(np.full((1, 40, 3), 9, np.uint8), alpha).shape == (1, 40, 3)


def test_the_rim_composed_on_its_own_ground_is_the_photo_again():
    photo, part, _, ground = scene()
    alpha = rim_alpha(part, 0.5, part >= 0.5)
    off = np.abs(on(clean_colours(photo, alpha), alpha, ground) - photo)
    rim = (alpha > 0) & (alpha < 255)
    naive = np.abs(on(photo, alpha, ground) - photo)[rim]
    assert off.max() <= 1 + 255 * (1 - SURE) / 2  # what counts as surely outside may have so much of the object
    assert off[rim].mean() < min(4, naive.mean() / 5)


@pytest.mark.parametrize("new", [(0, 0, 0), (20, 60, 160), (255, 255, 255)])
def test_no_halo_on_another_ground(new):
    photo, part, thing, _ = scene()
    alpha = rim_alpha(part, 0.5, part >= 0.5)
    rim = (alpha > 0) & (alpha < 255)
    expected = on(thing, 255 * part, np.array(new))
    clean = np.abs(on(clean_colours(photo, alpha), alpha, np.array(new)) - expected)[rim]
    naive = np.abs(on(photo, alpha, np.array(new)) - expected)[rim]
    assert clean.mean() < min(5, naive.mean() / 5)


def test_colours_of_the_inside_are_the_photo_and_go_on_a_little_beyond_the_rim():
    photo, part, thing, _ = scene()
    alpha = rim_alpha(part, 0.5, part >= 0.5)
    colours = clean_colours(photo, alpha)
    assert np.array_equal(colours[alpha == 255], photo[alpha == 255])
    beyond = ndimage.distance_transform_edt(alpha == 0)
    assert (colours[beyond > REACH] == 0).all()
    just = (beyond > 0) & (beyond <= 3)
    assert np.abs(colours[just].astype(float) - thing[just]).mean() < 12


def test_the_box_of_an_object():
    mask = np.zeros((20, 30), bool)
    assert object_box(mask, 3) is None
    mask[4:7, 28] = True
    assert mask[object_box(mask, 0)].shape == (3, 1)
    assert mask[object_box(mask, 2)].shape == (7, 4)  # the photo's right edge ends it
    assert mask[object_box(mask, 99)].shape == (20, 30)


def test_levels_and_masks_must_be_of_one_photo():
    with pytest.raises(DataError, match=r"\(4, 5\).*\(5, 4\)"):
        rim_alpha(np.zeros((4, 5), np.float32), 0.5, np.zeros((5, 4), bool))


def test_a_missing_extra_is_told(monkeypatch):
    check_installed()
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(UsageError, match=r"pip install 'carvana-ens\[cutout\]'"):
        check_installed()


@pytest.mark.real
@pytest.mark.parametrize("number", [0, 8, 24])
def test_real_rims_lose_their_background(number):
    """Human masks, blurred by a pixel as members do: the background's share in the colours of the rim, measured along
    the line from the colour 4 pixels inside to the colour 4 pixels outside.
    """
    folder = os.environ.get("CARVANA_ENS_DATA")
    if folder is None:
        pytest.skip("CARVANA_ENS_DATA is not set: there are no real photos to test on")
    path = sorted((Path(folder) / "carvana" / "train_hq").iterdir())[number]
    with PIL.Image.open(path) as picture:
        photo = np.asarray(picture.convert("RGB"))
    with PIL.Image.open(Path(folder) / "carvana" / "train_masks" / f"{path.stem}_mask.gif") as picture:
        mask = np.asarray(picture.convert("L"))
    levels = ndimage.gaussian_filter((mask > 127).astype(np.float32), 1)
    alpha = rim_alpha(levels, 0.5, levels >= 0.5)
    rim = (alpha > 0) & (alpha < 255)
    sides = []
    for side in (mask > 127, mask <= 127):
        deep = ndimage.binary_erosion(side, iterations=4)
        places = ndimage.distance_transform_edt(~deep, return_distances=False, return_indices=True)
        sides.append(photo[tuple(places)][rim].astype(float))
    inner, way = sides[0], sides[1] - sides[0]
    length = (way**2).sum(axis=1)
    told_apart = length > 60**2

    def background(colours):
        share = ((colours[rim] - inner) * way).sum(axis=1) / np.maximum(length, 1)
        return np.median(share[told_apart])

    assert told_apart.mean() > 0.3
    assert background(photo) > 0.3
    assert abs(background(clean_colours(photo, alpha))) < 0.2
