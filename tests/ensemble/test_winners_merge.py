"""The 1st-place team's last merge, beside plain numpy and cv2: four map sets, equal weights, top fix.

generate_sub_final_ensemble.py: the float mean of four 8-bit sets at 0.25 each, cut unrounded at 128; where a large
part of the upper half of albu's map is in doubt, the mean over 127 with the box around it replaced by a hull.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from carvana_ens.core.rle import rle_encode
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.steps import PostProcessed
from carvana_ens.registry import load_step

SETS = ("albu", "scratch", "ternaus", "vgg11v1")
SIZE = (640, 959)
MERGE = "roof-repair:member=albu:outside=over-127"
HALF = MERGE + ":area=10000:grow=25:erode=5"
"""Of pictures of half the size; the levels stay."""


def widest(mask):
    """The outer contour of the greatest area."""
    outlines, _ = cv2.findContours(mask.copy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return max(outlines, key=cv2.contourArea, default=None)


def theirs(maps, rounds, area, grow):
    """Their mask of one image, and whether the fix fired; in float32 and with cv2, as the script runs."""
    mean = np.clip(sum(np.float32(0.25) * codes.astype(np.float32) for codes in maps.values()), 0, 255)
    assert mean.dtype == np.float32
    albu = maps["albu"]
    doubt = np.where((albu > 30) & (albu < 210), 255, 0).astype(np.uint8)
    outline = widest(cv2.erode(doubt, (55, 55), iterations=rounds)[: len(albu) // 2])
    if outline is None or cv2.contourArea(outline) <= area:
        return mean >= 128, False
    x, y, width, height = cv2.boundingRect(outline)
    left = max(x - grow, 0)
    box = np.s_[y - grow : y + height + grow, left : left + width + 2 * grow]
    mask = mean > 127
    if mask[box].size:
        hull = cv2.convexHull(widest((albu[box] > 55).astype(np.uint8)))
        mask[box] = cv2.drawContours(np.zeros(mask[box].shape, np.uint8), [hull], -1, 1, cv2.FILLED)
    return mask, True


def drawn(seed, roof, size=SIZE):
    """Codes of one car by set. roof: its left edge, width, and top in the picture's halves; None for a sound one."""
    rng = np.random.default_rng(seed)
    height, width = size
    maps = {}
    for name in SETS:
        soft = np.zeros(size, np.float32)
        cv2.ellipse(soft, (width // 2, height * 6 // 10), (width // 3, height // 5), 0, 0, 360, 1.0, -1)
        cv2.rectangle(soft, (width // 3, height // 4), (width * 2 // 3, height // 2), 1.0, -1)
        soft = cv2.GaussianBlur(np.roll(soft, rng.integers(-2, 3, 2), (0, 1)), (0, 0), 2.5)
        codes = np.clip(np.rint(soft * 255 + rng.normal(0, 3, size)), 0, 255).astype(np.uint8)
        # ties: the mean of four is a multiple of a quarter, and much of it lies in [127, 128]
        codes[-40:, :200] = rng.integers(126, 130, (40, 200))
        if roof is not None:
            left, wide, top = roof
            level = rng.integers(60, 200)
            noise = rng.integers(-25, 26, (height // 2 - top, wide))
            codes[top : height // 2, left : left + wide] = np.clip(level + noise, 40, 205)
        maps[name] = codes
    return maps


CASES = {
    "sound_01": None,
    "roof_02": (320, 320, 160),
    "wide_03": (5, 700, 120),
    "right_04": (500, 455, 150),
    "small_05": (400, 60, 200),
    "above_06": (300, 300, 10),
}


@pytest.mark.parametrize("kind", ["half", "full"])
def test_equal_to_their_script(store, kind):
    size, text, numbers = (SIZE, HALF, (5, 10000, 25)) if kind == "half" else ((1280, 1918), MERGE, (10, 40000, 50))
    scale = size[0] // SIZE[0]
    cases = CASES if kind == "half" else {name: CASES[name] for name in ("sound_01", "roof_02")}
    images = {
        name: drawn(number, roof and tuple(scale * place for place in roof), size)
        for number, (name, roof) in enumerate(cases.items())
    }
    stores = {name: store(name, {image_id: maps[name] for image_id, maps in images.items()}) for name in SETS}
    found = PostProcessed(Blend(stores, "equal", "128/255"), text)
    (step,) = found.steps
    fired = []
    for image_id, mask in found:
        expected, fires = theirs(images[image_id], *numbers)
        assert np.count_nonzero(mask != expected) == 0, image_id
        assert found.rle(image_id).decode() == rle_encode(expected)
        assert (step.unreliable(images[image_id]["albu"]) is not None) == fires
        fired += [image_id] * fires
        mean = sum(codes.astype(np.int64) for codes in images[image_id].values()) / 4
        between = (mean > 127) & (mean < 128)  # where the two cuts differ
        assert np.count_nonzero(between) > 1000
        assert np.count_nonzero(mask & between) == (np.count_nonzero(between) if fires else 0)
    assert fired == [name for name in cases if name not in ("sound_01", "small_05")]


def test_the_numbers_of_the_script_are_the_defaults():
    step = load_step("roof-repair")[0]()
    assert (step.low, step.high, step.erode, step.area, step.grow, step.inner) == (30, 210, 10, 40000, 50, 55)
