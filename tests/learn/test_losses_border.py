"""Border weights against known numbers and a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from carvana_ens.learn.borders import border_weights
from carvana_ens.learn.loss_options import LossOptions, border_side
from carvana_ens.learn.losses import one_loss


def weights(t, side, rule, limit=0.01):
    return border_weights(torch.from_numpy(t), side, rule, limit)[:, 0].numpy()


def half(height=8, width=12):
    """One photo, its right half object."""
    t = np.zeros((1, 1, height, width), np.float32)
    t[..., width // 2 :] = 1
    return t


def test_a_straight_edge_has_a_band_of_weight_three_and_zeros_beyond_the_photo_make_another():
    inside = weights(half(), 3, "tensorflow")[0]
    expected = np.ones((8, 12))
    expected[:, 5:7] = 3
    assert inside == pytest.approx(expected * 96 / expected.sum(), rel=1e-6)
    expected[0, 5:] = expected[-1, 5:] = expected[:, -1] = 3  # object beside the zeros
    assert weights(half(), 3, "torch")[0] == pytest.approx(expected * 96 / expected.sum(), rel=1e-6)


@pytest.mark.parametrize("rule", ["torch", "tensorflow"])
@pytest.mark.parametrize("side", [3, 5, 11, 21])
@pytest.mark.parametrize("limit", [0.01, 0.005, 0.1734])
def test_weights_are_those_of_the_mean_over_the_square(side, rule, limit):
    rng = np.random.default_rng(side)
    t = np.kron(rng.random((2, 1, 5, 6)).round(), np.ones((4, 5))).astype(np.float32)
    t[1, :, 3:9] = rng.random((1, 6, 30)).astype(np.float32)
    r = side // 2
    beyond = 0 if rule == "torch" else np.nan
    wide = np.pad(t.astype(np.float64), ((0, 0), (0, 0), (r, r), (r, r)), constant_values=beyond)
    mean = np.nanmean(sliding_window_view(wide, (side, side), (2, 3)), (-1, -2))
    near = (mean > limit) & (mean < 1 - limit)  # none of these means lies on a limit
    assert near.any()
    expected = np.where(near, 3.0, 1.0)
    expected *= expected.size / expected.sum()  # over both photos together
    assert weights(t, side, rule, limit) == pytest.approx(expected[:, 0], rel=1e-5)
    assert weights(t, side, rule, limit).mean() == pytest.approx(1, rel=1e-6)


def test_limits_count_as_border_by_one_rule_and_not_by_the_other():
    t = np.full((1, 1, 5, 5), 0.25, np.float32)
    t[..., 2:] = 0.75
    flat = weights(t, 3, "tensorflow", 0.25)[0, 2]
    assert flat[1] == flat[2] == 3 * flat[0] == 3 * flat[4]  # means of 0.25 and 0.75 lie on the limits
    border = weights(t[:, :, 1:-1], 3, "torch", 0.25)[0, 1]
    assert border[1] == border[2] == border[3]


def test_a_photo_all_object_has_a_border_at_its_rim_by_one_rule_only():
    t = np.ones((1, 1, 9, 9), np.float32)
    assert weights(t, 5, "tensorflow") == pytest.approx(1)
    rim = weights(t, 5, "torch")[0]
    assert rim[2:-2, 2:-2] == pytest.approx(rim[4, 4])
    assert rim[1] == pytest.approx(3 * rim[4, 4])


def test_a_photo_without_object_weighs_one_everywhere():
    for rule in ("torch", "tensorflow"):
        assert weights(np.zeros((2, 1, 4, 4), np.float32), 3, rule) == pytest.approx(1)


@pytest.mark.parametrize(
    ("height", "side"),
    [(128, 11), (256, 21), (512, 21), (1024, 41), (1280, 51), (1, 11), (640, 21), (960, 41), (1152, 41), (4000, 51)],
)
def test_auto_is_the_authors_side_at_their_heights_and_that_of_the_nearest_elsewhere(height, side):
    assert border_side("auto", height) == side


def test_auto_goes_by_the_height_and_not_by_the_width():
    t = half(16, 1024)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=t.shape).astype(np.float32))
    target = torch.from_numpy(t)
    auto = one_loss(z, target, LossOptions(border="auto"))
    assert auto == one_loss(z, target, LossOptions(border="11"))
    assert auto != one_loss(z, target, LossOptions(border="41"))
