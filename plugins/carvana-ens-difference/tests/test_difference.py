from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from carvana_ens_difference import Difference, background
from PIL import Image

from carvana_ens import Batch, MemberConfig, UsageError
from carvana_ens.testing import declared_models

REAL = os.environ.get("CARVANA_ENS_DATA")


def make(**options):
    return Difference(MemberConfig("difference", "difference", options=options))


def batch_of(images, ids=None):
    ids = ids or tuple(f"car_{view + 1:02}" for view in range(len(images)))
    return Batch(np.ascontiguousarray(images), tuple(ids), ("car",) * len(ids))


def predict(images, ids=None, **options):
    maps = make(**options).predict(batch_of(images, ids))
    assert maps.shape == images.shape[:3]
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    return maps


def dice(maps, masks):
    found = maps >= 0.5
    return [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(found, masks, strict=True)]


def turntable(views, height=160, width=240, shadow=0.0, seed=0):
    """Images and masks: a box that turns before a standing room of wall, letters and floor, with noise.

    Its sides are of patches, other ones in each view, as those of a car that mirrors the room. shadow: how much darker
    (0 to 1) the floor is at most, in a soft spot below the box that turns with it.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    room = np.where(y < 0.4, 220.0, 160.0) + 15 * x
    room[(y > 0.1) & (y < 0.35) & (np.floor(x * 12) % 2 == 1)] = 90  # letters, in part behind the box
    images, masks = [], []
    for view in range(views):
        angle = 2 * np.pi * view / views
        half, middle = 0.12 + 0.2 * np.sin(angle) ** 2, 0.5 + 0.05 * np.cos(angle)
        mask = (np.abs(x - middle) < half) & (np.abs(y - 0.5) < 0.25)
        spot = np.exp(-(((x - middle) / (1.2 * half)) ** 4) - ((y - 0.75) / 0.12) ** 2)
        image = room * (1 - shadow * spot)
        patches = rng.uniform(10, 110, (20, 30))
        image[mask] = patches[(y * 20).astype(int), (x * 30).astype(int)][mask]
        images.append(image[..., None] + [0, 5, -5] + rng.normal(0, 1, (height, width, 3)))
        masks.append(mask)
    return np.stack(images).clip(0, 255).astype(np.uint8), np.stack(masks)


@pytest.mark.parametrize("size", [(160, 240), (97, 131)])
@pytest.mark.parametrize("views", [4, 16])
def test_finds_what_moves(size, views):
    images, masks = turntable(views, *size)
    assert min(dice(predict(images), masks)) > 0.9


def test_a_shadow_is_not_the_object():
    plain, masks = turntable(8)
    shaded, _ = turntable(8, shadow=0.5)
    below = ~masks & (np.arange(160) > 125)[:, None]
    fallen = (plain.astype(int) - shaded).max(axis=-1) > 40
    assert (fallen & below).sum() > 5000  # the scene does have a shadow, darker than option difference asks
    found = predict(shaded) >= 0.5
    assert (found & fallen & below).sum() < 0.1 * (fallen & below).sum()
    assert np.mean(dice(found, masks)) > 0.9


def test_background_is_the_room_where_it_was_ever_seen():
    images, masks = turntable(16)
    views = images.astype(np.float32)
    room, known = background(views)
    seen = (~masks).sum(axis=0)
    empty = (views * ~masks[..., None]).sum(axis=0) / np.maximum(seen, 1)[..., None]
    right = np.abs(room - empty).max(axis=-1) < 5
    assert (known & right)[seen >= 8].mean() > 0.99
    assert not (known & right)[seen == 0].any()
    assert room.dtype == np.float32
    assert known.shape == (160, 240)


def test_order_of_the_views_does_not_matter():
    images, _ = turntable(8)
    ids = [f"car_{view:02}" for view in range(8)]
    order = np.random.default_rng(1).permutation(8)
    expected = predict(images, ids)
    np.testing.assert_array_equal(predict(images[order], [ids[i] for i in order]), expected[order])


@pytest.mark.parametrize("views", [1, 2])
def test_one_or_two_views_are_compared_with_their_frame(views):
    images, masks = turntable(views)
    images[~masks] = (200, 190, 180)
    assert min(dice(predict(images), masks)) > 0.9


@pytest.mark.parametrize("views", [1, 2, 5])
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (5, 9), (33, 47)])
def test_nothing_to_see_is_no_object(views, level, size):
    assert not predict(np.full((views, *size, 3), level, np.uint8)).any()


@pytest.mark.parametrize("views", [1, 2, 3, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (5, 9), (33, 47)])
def test_noise_of_any_size_gives_finite_maps(views, size):
    predict(np.random.default_rng(0).integers(0, 256, (views, *size, 3), dtype=np.uint8))


def test_softness_widens_the_edge():
    images, _ = turntable(4)
    sharp, soft = predict(images, softness=0.001), predict(images, softness=0.02)
    assert ((soft > 0.05) & (soft < 0.95)).sum() > 3 * ((sharp > 0.05) & (sharp < 0.95)).sum()


def test_difference_is_what_the_object_must_reach():
    images, masks = turntable(4)
    assert predict(images).sum() > 0.9 * masks.sum()
    assert not predict(images, difference=255, detail=300).any()


@pytest.mark.parametrize("name", ["difference", "detail", "reach", "softness"])
@pytest.mark.parametrize("value", [0, -1.5])
def test_options_are_positive(name, value):
    with pytest.raises(UsageError, match=f"option {name} is .*: it must be greater than 0"):
        make(**{name: value})


def test_the_entry_point_is_the_model():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert declared_models(pyproject) == {"difference": Difference}
    project = tomllib.loads(pyproject.read_text())["project"]
    assert not any("torch" in dependency for dependency in project["dependencies"])


def small(path, resample):
    with Image.open(path) as picture:
        return np.asarray(picture.resize((240, 160), resample))


@pytest.mark.real
@pytest.mark.skipif(REAL is None, reason="needs the real photos: set CARVANA_ENS_DATA")
@pytest.mark.parametrize(("car", "least"), [("2a4a8964ebf3", 0.93), ("2af7c265531e", 0.91)])
def test_real_cars(car, least):
    folder = Path(REAL or "") / "carvana"
    photos = sorted((folder / "train_hq").glob(f"{car}_*.jpg"))
    truths = [folder / "train_masks" / f"{photo.stem}_mask.gif" for photo in photos]
    assert len(photos) == 16
    images = np.stack([small(photo, Image.Resampling.BILINEAR) for photo in photos])
    masks = [small(truth, Image.Resampling.NEAREST) > 0 for truth in truths]
    assert np.mean(dice(predict(images), masks)) > least
