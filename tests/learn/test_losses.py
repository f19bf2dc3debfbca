from __future__ import annotations

import numpy as np
import pytest
import torch

from carvana_ens.learn.losses import bce_dice_loss, hard_dice, soft_dice_loss, summed_loss


def numpy_bce(z, t):
    z, t = z.astype(np.float64), t.astype(np.float64)
    p = 1 / (1 + np.exp(-z))
    return -np.mean(t * np.log(p) + (1 - t) * np.log1p(-p))


def numpy_dice_loss(z, t):
    terms = []
    for zi, ti in zip(z.astype(np.float64), t.astype(np.float64), strict=True):
        p = 1 / (1 + np.exp(-zi))
        terms.append(1 - (2 * (p * ti).sum() + 1) / (p.sum() + ti.sum() + 1))
    return np.mean(terms)


def numpy_hard_dice(z, t):
    result = []
    for zi, ti in zip(z, t, strict=True):
        p = zi >= 0
        tp, fp, fn = (p & ti).sum(), (p & ~ti).sum(), (~p & ti).sum()
        result.append(1.0 if tp + fp + fn == 0 else 2 * tp / (2 * tp + fp + fn))
    return result


@pytest.fixture(params=["soft", "hard", "empty", "full"])
def pair(request):
    rng = np.random.default_rng(5)
    z = rng.normal(0, 3, (3, 1, 7, 9)).astype(np.float32)
    t = {
        "soft": rng.random((3, 1, 7, 9)),
        "hard": rng.random((3, 1, 7, 9)) < 0.4,
        "empty": np.zeros((3, 1, 7, 9)),
        "full": np.ones((3, 1, 7, 9)),
    }[request.param].astype(np.float32)
    return z, t


def test_losses_equal_their_formulas_in_float64(pair):
    z, t = pair
    dice = soft_dice_loss(torch.from_numpy(z), torch.from_numpy(t)).item()
    both = bce_dice_loss(torch.from_numpy(z), torch.from_numpy(t)).item()
    assert dice == pytest.approx(numpy_dice_loss(z, t), abs=1e-6)
    assert both == pytest.approx(numpy_bce(z, t) + numpy_dice_loss(z, t), abs=1e-5)


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much():
    t = torch.zeros(2, 1, 8, 8)
    t[0, 0, 2:5, 2:5] = 1  # the other photo is empty
    z = (t * 2 - 1) * 50
    assert bce_dice_loss(z, t).item() == pytest.approx(0, abs=1e-6)
    assert bce_dice_loss(-z, t).item() > 40


def test_one_empty_photo_does_not_change_the_cost_of_its_neighbour():
    rng = np.random.default_rng(1)
    z = torch.from_numpy(rng.normal(size=(1, 1, 6, 6)).astype(np.float32))
    t = (z > 0.5).float()
    empty_z, empty_t = torch.full_like(z, -60), torch.zeros_like(t)
    pair = soft_dice_loss(torch.cat([z, empty_z]), torch.cat([t, empty_t]))
    assert pair.item() == pytest.approx(soft_dice_loss(z, t).item() / 2, abs=1e-6)


def test_the_loss_of_several_maps_is_the_sum_with_the_target_on_each_grid(tiny, pair):
    _, t = pair
    rng = np.random.default_rng(6)
    maps = [rng.normal(0, 3, (3, 1, *grid)).astype(np.float32) for grid in ((7, 9), (7, 9), (4, 5), (2, 3), (1, 1))]
    expected = 0.0
    for z in maps:
        target = tiny.resized(t, *z.shape[2:])
        expected += numpy_bce(z, target) + numpy_dice_loss(z, target)
    got = summed_loss([torch.from_numpy(z) for z in maps], torch.from_numpy(t))
    assert got.item() == pytest.approx(expected, abs=1e-4)
    alone = summed_loss([torch.from_numpy(maps[0])], torch.from_numpy(t))
    assert alone.item() == bce_dice_loss(torch.from_numpy(maps[0]), torch.from_numpy(t)).item()


def test_hard_dice_equals_its_formula_also_for_empty_photos():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(6, 1, 5, 4)).astype(np.float32)
    t = rng.random((6, 1, 5, 4)) < 0.5
    z[1], t[1] = -1, False  # both empty
    z[2], t[2] = -1, True  # nothing found
    z[3], t[3] = 1, False  # all wrong
    z[4] = 0  # on the threshold: object
    got = hard_dice(torch.from_numpy(z), torch.from_numpy(t)).numpy()
    assert got == pytest.approx(numpy_hard_dice(z, t), abs=1e-6)
    assert got[1] == 1
    assert got[2] == got[3] == 0
