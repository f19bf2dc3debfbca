"""On real masks at full size: damage is mended, and a roof is repaired only where it was made unreliable."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from carvana_ens_postprocess import RoofRepair
from PIL import Image

from carvana_ens import dice, parse_steps

REAL = os.environ.get("CARVANA_ENS_DATA")
pytestmark = [pytest.mark.real, pytest.mark.skipif(REAL is None, reason="needs the real masks: set CARVANA_ENS_DATA")]


class Shown:
    """An image of one member."""

    id, weights, members = "car_01", {"albu": 1}, ("albu",)

    def __init__(self, codes):
        self.size, self._codes = codes.shape, codes

    def codes(self, member):
        return self._codes.copy()


@pytest.fixture(scope="module")
def truths():
    found = []
    for path in sorted((Path(REAL or "") / "carvana" / "train_masks").glob("*.gif"))[::4]:
        with Image.open(path) as picture:
            found.append(np.asarray(picture) > 0)
    assert len(found) == 8
    return found


def test_planted_holes_and_islands_are_mended(truths):
    steps = parse_steps("remove-islands:area=2000,fill-holes:area=2000")
    rng = np.random.default_rng(0)
    for truth in truths:
        damaged = truth.copy()
        corners = [(y, x) for y in range(0, truth.shape[0] - 44, 44) for x in range(0, truth.shape[1] - 44, 44)]
        for y, x in rng.permutation(corners)[:60]:
            patch = truth[y : y + 44, x : x + 44]
            if patch.all() or not patch.any():  # well inside, or well outside
                damaged[y + 2 : y + 42, x + 2 : x + 42] ^= True
        mended = damaged
        for step in steps:
            mended = step.apply(mended, Shown(damaged))
        plain = truth
        for step in steps:
            plain = step.apply(plain, Shown(damaged))
        assert dice(damaged, truth) < 0.999
        assert dice(plain, truth) > 0.99  # cars have holes of their own, at wheels and roof racks
        np.testing.assert_array_equal(mended, plain)


def test_a_roof_is_repaired_where_it_is_unreliable(truths):
    fired = 0
    for truth in truths:
        codes = cv2.GaussianBlur(truth.astype(np.uint8) * 255, (0, 0), 3)
        assert RoofRepair().unreliable(codes) is None
        top = int(truth.any(axis=1).argmax())
        roof = np.zeros_like(truth)
        roof[top : top + 150] = truth[top : top + 150]
        codes[cv2.erode(roof.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0] = 110
        damaged = codes > 127
        if RoofRepair().unreliable(codes) is None:
            assert roof[: len(roof) // 2].sum() < 60000
            continue
        fired += 1
        mended = RoofRepair().apply(damaged, Shown(codes))
        assert dice(mended, truth) > dice(damaged, truth) + 0.02
        assert dice(mended, truth) > 0.97
    assert fired >= 4
