"""Every term against its formula in float64, written out here once more."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn import loss_options
from carvana_ens.learn.loss_options import LossOptions, parse_loss
from carvana_ens.learn.losses import TERMS, hard_dice, one_loss, summed_loss
from carvana_ens.model import options_json, parse_options


def probabilities(z):
    z = z.astype(np.float64)
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))))


def surprise(z):
    """-log p of the object, for logits that a float64 sigmoid rounds to 0 or 1 too."""
    z = z.astype(np.float64)
    return np.log1p(np.exp(-np.abs(z))) + np.maximum(-z, 0)


def photo_sums(z, t, w):
    """I and S of each photo."""
    p = probabilities(z)
    both = [(wi * wi * pi * ti).sum() for wi, pi, ti in zip(w, p, t, strict=True)]
    each = [(wi * wi * pi).sum() + (wi * wi * ti).sum() for wi, pi, ti in zip(w, p, t, strict=True)]
    return np.array(both), np.array(each)


def bce(z, t, w):
    return (w * (t * surprise(z) + (1 - t) * surprise(-z))).sum() / w.sum()


def bce_positive(z, t, w):
    # as TensorFlow writes its weighted cross-entropy of logits
    parts = (1 - t) * z + (1 + (w - 1) * t) * (np.log1p(np.exp(-np.abs(z))) + np.maximum(-z, 0))
    return parts.sum() / w.sum()


def dice(z, t, w):
    both, each = photo_sums(z, t, w)
    return np.mean([1 - (2 * i + 1) / (s + 1) for i, s in zip(both, each, strict=True)])


def dice_batch(z, t, w):
    both, each = photo_sums(z, t, w)
    return 1 - (2 * both.sum() + 1) / (each.sum() + 1)


def dice_plus(z, t, w):
    both, each = photo_sums(z, t, w)
    return 1 - np.mean([2 * (i + 1) / (s + 1) for i, s in zip(both, each, strict=True)])


def log_dice(z, t, w):
    both, each = photo_sums(z, t, w)
    return -math.log(2 * both.sum() / (each.sum() + 1e-15)) if both.sum() else -math.log(1e-15 / each.sum())


def iou(z, t, w):
    p, t = probabilities(z), np.where(t > 0.5, 1.0, 0.0)
    return 1 - (p * t).sum() / (p + t - p * t).sum()


def focal(z, t, w):
    p = probabilities(z)
    truth = p * t + (1 - p) * (1 - t)
    alpha = 0.25 * t + 0.75 * (1 - t)
    return np.mean(alpha * (1 - truth) ** 2 * (t * surprise(z) + (1 - t) * surprise(-z)))


def focal_positive(z, t, w):
    return np.mean(t * (1 - probabilities(z)) ** 0.5 * surprise(z))


TWINS = {
    "bce": bce,
    "bce-positive": bce_positive,
    "dice": dice,
    "dice-batch": dice_batch,
    "dice-plus": dice_plus,
    "dice-clamp": lambda z, t, w: min(max(dice_plus(z, t, w), 0), 1),
    "log-dice": log_dice,
    "log-dice-plus": lambda z, t, w: -math.log(1 - dice_plus(z, t, w)),
    "iou": iou,
    "focal": focal,
    "focal-positive": focal_positive,
}
UNWEIGHTED = ("iou", "focal", "focal-positive")


def window_mean(t, side, zeros):
    """Mean over the square around each pixel; what lies beyond the photo counts as zeros, or not at all."""
    r = side // 2
    means = np.zeros(t.shape)
    for n, _, y, x in np.ndindex(*t.shape):
        square = t[n, 0, max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1].astype(np.float64)
        means[n, 0, y, x] = square.sum() / (side * side if zeros else square.size)
    return means


def numpy_weights(t, side, rule, limit=0.01):
    a = window_mean(t, side, rule == "torch")
    near = (a >= limit) & (a <= 1 - limit) if rule == "torch" else (a > limit) & (a < 1 - limit)
    w = np.where(near, 3.0, 1.0)
    return w * w.size / w.sum()


def pair(kind, photos=3, shape=(13, 17)):
    """Logits and a target: the object is a rectangle that touches the photo's rim, or noise."""
    rng = np.random.default_rng(5)
    z = rng.normal(0, 3, (photos, 1, *shape)).astype(np.float32)
    t = np.zeros(z.shape, np.float32)
    if kind == "drawn":
        t[:, :, 4:, 5:10] = 1
        t[0, :, :3, :2] = 1
    elif kind == "soft":
        t[:] = rng.random(z.shape)
    else:
        t[:] = kind == "full"
    return z, t


def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]


def test_every_term_that_the_options_name_is_there_and_has_a_twin():
    assert list(TERMS) == list(loss_options.TERMS) == list(TWINS)


@pytest.mark.parametrize("photos", [1, 3])
@pytest.mark.parametrize("kind", ["drawn", "soft", "empty", "full"])
@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_its_formula(term, kind, photos):
    z, t = pair(kind, photos)
    got = one_loss(*tensors(z, t), LossOptions(loss=term))
    assert got.shape == ()
    assert got.item() == pytest.approx(TWINS[term](z, t, np.ones(z.shape)), rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("photos", [1, 3])
@pytest.mark.parametrize("rule", ["torch", "tensorflow"])
@pytest.mark.parametrize("side", [3, 11])
@pytest.mark.parametrize("term", TERMS)
def test_a_term_with_border_weights_is_its_formula(term, side, rule, photos):
    z, t = pair("drawn", photos)
    w = numpy_weights(t, side, rule)
    got = one_loss(*tensors(z, t), LossOptions(loss=term, border=str(side), border_rule=rule)).item()
    assert got == pytest.approx(TWINS[term](z, t, w), rel=2e-6, abs=1e-6)
    plain = TWINS[term](z, t, np.ones(z.shape))
    assert (abs(got - plain) > 1e-4) == (term not in UNWEIGHTED)  # the weights say something


def test_a_clamped_term_is_cut_at_zero_and_its_neighbour_is_not():
    z, t = pair("empty")
    z -= 60
    assert one_loss(*tensors(z, t), LossOptions(loss="dice-clamp")).item() == 0
    assert one_loss(*tensors(z, t), LossOptions(loss="dice-plus")).item() == pytest.approx(-1)


@pytest.mark.parametrize("term", TERMS)
def test_gradients_are_those_of_the_numbers(term):
    z, t = pair("drawn", 2, (6, 5))
    for target in (t, np.random.default_rng(3).random(t.shape)):
        logits = torch.from_numpy(z.astype(np.float64)).requires_grad_()
        options = LossOptions(loss=term, border="3")
        # torch compares with differences of the loss in float64; iou is of targets cut at 0.5, a constant
        assert torch.autograd.gradcheck(lambda x, y=target, o=options: one_loss(x, torch.from_numpy(y), o), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["drawn", "soft", "empty", "full"])
@pytest.mark.parametrize("term", TERMS)
def test_terms_and_gradients_are_finite_wherever_the_logits_are(term, kind, dtype):
    _, t = pair(kind)
    ones, right = np.ones(t.shape), t * 2 - 1
    for z in (-100 * ones, 100 * ones, 1000 * ones, 100 * right, -100 * right):
        logits = torch.from_numpy(z).to(dtype).requires_grad_()
        loss = one_loss(logits, torch.from_numpy(t), LossOptions(loss=term, border="5"))
        loss.backward()
        assert math.isfinite(loss.item())
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("term", TERMS)
def test_half_precision_is_computed_in_single(term, dtype):
    z, t = tensors(*pair("soft"))
    options = LossOptions(loss=term, border="5")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = one_loss(z.to(dtype), t, options)
    assert got.dtype == torch.float32
    assert got.item() == one_loss(z.to(dtype).float(), t, options).item()


def test_a_loss_is_the_weighted_sum_of_its_terms():
    z, t = pair("drawn")
    got = one_loss(*tensors(z, t), LossOptions(loss="bce=0.5, dice-batch , iou=3", border="5")).item()
    w = numpy_weights(t, 5, "torch")
    assert got == pytest.approx(0.5 * bce(z, t, w) + dice_batch(z, t, w) + 3 * iou(z, t, w), rel=1e-5)
    plain = summed_loss(tensors(z), torch.from_numpy(t), LossOptions()).item()
    ones = np.ones(z.shape)
    assert plain == pytest.approx(bce(z, t, ones) + dice(z, t, ones), rel=1e-5)


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much():
    t = torch.zeros(2, 1, 8, 8)
    t[0, 0, 2:5, 2:5] = 1  # the other photo is empty
    z = (t * 2 - 1) * 50
    assert summed_loss([z], t, LossOptions()).item() == pytest.approx(0, abs=1e-6)
    assert summed_loss([-z], t, LossOptions()).item() > 40
    for term in sorted(set(TERMS) - {"dice-plus", "log-dice-plus"}):  # theirs go below 0
        assert one_loss(z, t, LossOptions(loss=term)).item() == pytest.approx(0, abs=1e-6)


def test_one_empty_photo_does_not_change_the_cost_of_its_neighbour():
    rng = np.random.default_rng(1)
    z = torch.from_numpy(rng.normal(size=(1, 1, 6, 6)).astype(np.float32))
    t = (z > 0.5).float()
    empty_z, empty_t = torch.full_like(z, -60), torch.zeros_like(t)
    options = LossOptions(loss="dice")
    both = one_loss(torch.cat([z, empty_z]), torch.cat([t, empty_t]), options)
    assert both.item() == pytest.approx(one_loss(z, t, options).item() / 2, abs=1e-6)


@pytest.mark.parametrize(("loss", "border"), [("bce,dice", "0"), ("bce,iou", "3")])
@pytest.mark.parametrize("kind", ["drawn", "soft"])
def test_the_loss_of_several_maps_is_the_sum_with_the_target_on_each_grid(tiny, kind, loss, border):
    _, t = pair(kind)
    options = LossOptions(loss=loss, border=border)
    rng = np.random.default_rng(6)
    grids = ((13, 17), (13, 17), (7, 9), (4, 5), (2, 3), (1, 1))
    maps = [rng.normal(0, 3, (3, 1, *grid)).astype(np.float32) for grid in grids]
    expected = 0.0
    for z in maps:
        target = tiny.resized(t.astype(np.float64), *z.shape[2:])
        w = numpy_weights(target, 3, "torch") if border == "3" else np.ones(z.shape)
        expected += sum(TWINS[term](z, target, w) for term in loss.split(","))
    got = summed_loss(tensors(*maps), torch.from_numpy(t), options)
    assert got.item() == pytest.approx(expected, rel=1e-5)
    alone = summed_loss(tensors(maps[0]), torch.from_numpy(t), options)
    assert alone.item() == one_loss(*tensors(maps[0], t), options).item()


def test_terms_are_parsed_with_their_weights():
    assert parse_loss("bce=1,dice=1") == {"bce": 1, "dice": 1}
    assert parse_loss("bce") == {"bce": 1}
    assert parse_loss(" iou = 0.25 , log-dice=2e-1") == {"iou": 0.25, "log-dice": 0.2}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loss": ""}, "unknown"),
        ({"loss": "dise"}, "'dice'"),
        ({"loss": "bce,hinge"}, "'hinge'"),
        ({"loss": "bce=0"}, "above 0"),
        ({"loss": "bce=-1"}, "above 0"),
        ({"loss": "bce=inf"}, "above 0"),
        ({"loss": "bce=nan"}, "above 0"),
        ({"loss": "bce="}, "above 0"),
        ({"loss": "bce=much"}, "'much'"),
        ({"loss": "bce,dice,bce=2"}, "twice"),
        ({"border": "1"}, "border"),
        ({"border": "10"}, "odd"),
        ({"border": "-11"}, "odd"),
        ({"border": "wide"}, "auto"),
        ({"border": "²"}, "auto"),
        ({"border_rule": "keras"}, "tensorflow"),
        ({"border_limit": 0.0}, "border_limit"),
        ({"border_limit": 0.5}, "border_limit"),
        ({"dice_rim": -1}, "dice_rim"),
    ],
)
def test_options_out_of_range_are_refused_by_name(values, said):
    with pytest.raises(UsageError, match=said):
        parse_options(LossOptions, values)


def test_options_survive_json():
    options = LossOptions(loss="bce=2,iou", border="auto", border_rule="tensorflow", dice_rim=6)
    assert parse_options(LossOptions, options_json(options)) == options


def numpy_hard_dice(z, t):
    result = []
    for zi, ti in zip(z, t, strict=True):
        p = zi >= 0
        tp, fp, fn = (p & ti).sum(), (p & ~ti).sum(), (~p & ti).sum()
        result.append(1.0 if tp + fp + fn == 0 else 2 * tp / (2 * tp + fp + fn))
    return result


def test_hard_dice_equals_its_formula_also_for_empty_photos():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(6, 1, 5, 4)).astype(np.float32)
    t = rng.random((6, 1, 5, 4)) < 0.5
    z[1], t[1] = -1, False  # both empty
    z[2], t[2] = -1, True  # nothing found
    z[3], t[3] = 1, False  # all wrong
    z[4] = 0  # on the threshold: object
    got = hard_dice(*tensors(z, t)).numpy()
    assert got == pytest.approx(numpy_hard_dice(z, t), abs=1e-6)
    assert got[1] == 1
    assert got[2] == got[3] == 0


@pytest.mark.parametrize("rim", [1, 2, 3])
def test_hard_dice_without_a_rim_is_that_of_the_photo_inside(rim):
    rng = np.random.default_rng(2)
    z = rng.normal(size=(4, 1, 9, 7)).astype(np.float32)
    t = rng.random(z.shape) < 0.5
    inner = np.s_[:, :, rim : 9 - rim, rim : 7 - rim]
    got = hard_dice(*tensors(z, t), rim=rim).numpy()
    assert got == pytest.approx(numpy_hard_dice(z[inner], t[inner]), abs=1e-6)


def test_a_rim_that_leaves_nothing_is_refused():
    with pytest.raises(TrainingError, match="dice_rim"):
        hard_dice(torch.zeros(1, 1, 9, 8), torch.zeros(1, 1, 9, 8, dtype=torch.bool), rim=4)
