from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.core.blend import blend_bits
from carvana_ens.core.curve import dice_curve, histograms
from carvana_ens.core.dice import counts, dice_from_counts
from carvana_ens.core.rle import mask_bits
from carvana_ens.errors import DataError, UsageError

PIXELS = [1, 63, 64, 65, 128, 129, 1000]
WEIGHTS = [[1], [65536], [1, 1], [65533, 2, 1], [3, 0, 2, 2], [5, 1, 1, 8, 13, 2], list(range(1, 50))]
DTYPES = {np.uint8: 255, np.uint16: 65535}


def truths(pixels):
    half = np.arange(pixels) % 2 == 0
    return [np.zeros(pixels, np.bool_), np.ones(pixels, np.bool_), half]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_histograms_equal_the_twin(reference, dtype, weights):
    weights, full_scale = np.array(weights, np.uint32), DTYPES[dtype]
    ranges = [(1, full_scale), (full_scale // 4, 3 * full_scale // 4), (full_scale // 2, full_scale // 2)]
    for pixels in PIXELS:
        for kind, codes in reference.code_kinds(len(weights), pixels, dtype, full_scale // 2).items():
            for truth in truths(pixels):
                for low, high in ranges:
                    got = histograms(codes, weights, mask_bits(truth[None]), low, high)
                    expected = reference.histogram(codes, weights, truth, full_scale, low, high)
                    assert np.array_equal(got, expected), (kind, pixels, low, high)


def test_all_levels_are_told_apart_by_default(reference):
    codes = np.random.default_rng(2).integers(0, 256, (3, 999)).astype(np.uint8)
    truth = np.random.default_rng(3).random(999) < 0.3
    weights = np.array([1, 2, 4], np.uint32)
    expected = reference.histogram(codes, weights, truth, 255)
    assert np.array_equal(histograms(codes, weights, mask_bits(truth[None])), expected)


@pytest.mark.parametrize("total", [1, 3, 255, 257, 4097, 32768, 65535, 65536])
def test_levels_are_divided_exactly(reference, total):
    # Sums on both sides of every multiple of W that a code of weight W - 1 and one of weight 1 can make.
    weights = np.array([total - 1, 1] if total > 1 else [1], np.uint32)
    level = np.arange(65536)
    codes = np.stack([np.maximum(level, 0), np.minimum(level + (level % 3 - 1), 65535).clip(0)])[: len(weights)]
    codes = np.ascontiguousarray(codes.astype(np.uint16))
    truth = level % 5 == 0
    got = histograms(codes, weights, mask_bits(truth[None]))
    assert np.array_equal(got, reference.histogram(codes, weights, truth, 65535))


@pytest.mark.parametrize("kind", ["random", "few disagree", "all 0", "all full", "around the cut"])
def test_the_curve_is_the_dice_of_the_blend_at_every_threshold(reference, kind):
    weights = np.array([5, 1, 3], np.uint32)
    codes = reference.code_kinds(3, 777, np.uint8, 128)[kind]
    for truth in truths(777):
        bits = mask_bits(truth[None])
        curve = dice_curve(*histograms(codes, weights, bits))
        assert curve.shape == (255,)
        for level in range(1, 256):
            cut = level * int(weights.sum())
            assert curve[level - 1] == reference.dice(reference.blend(codes, weights, cut), truth)
            assert curve[level - 1] == dice_from_counts(*counts(blend_bits(codes, weights, cut), bits))


def test_a_narrow_range_keeps_its_thresholds(reference):
    weights = np.array([5, 1, 3], np.uint32)
    codes = reference.code_kinds(3, 777, np.uint8, 128)["random"]
    bits = mask_bits(np.random.default_rng(4).random((1, 777)) < 0.5)
    whole = dice_curve(*histograms(codes, weights, bits))
    narrow = dice_curve(*histograms(codes, weights, bits, 64, 191))
    assert np.array_equal(narrow[63:191], whole[63:191])


def test_two_empty_masks_agree():
    codes = np.zeros((1, 10), np.uint8)
    curve = dice_curve(*histograms(codes, np.array([1], np.uint32), mask_bits(np.zeros((1, 10), np.bool_))))
    assert (curve == 1).all()


def test_what_cannot_be_counted_is_refused():
    codes, weights = np.zeros((2, 100), np.uint8), np.ones(2, np.uint32)
    bits = mask_bits(np.zeros((1, 100), np.bool_))
    with pytest.raises(DataError, match="3 bit words do not hold 100 pixels"):
        histograms(codes, weights, mask_bits(np.zeros((1, 130), np.bool_)))
    with pytest.raises(DataError, match="bits past the last of 100 pixels"):
        histograms(codes, weights, mask_bits(np.ones((1, 110), np.bool_)))
    for low, high in ((0, 255), (1, 256), (9, 8)):
        with pytest.raises(UsageError, match=f"levels {low}..{high} are not within"):
            histograms(codes, weights, bits, low, high)
    with pytest.raises(UsageError, match="weights are float64"):
        histograms(codes, np.ones(2), bits)
    with pytest.raises(UsageError, match="give two of one length"):
        dice_curve(np.zeros(256, np.int64), np.zeros(255, np.int64))
