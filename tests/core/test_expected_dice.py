"""The cut of greatest expected Dice, against every cut tried in fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.core.expected_dice import blend_cut, expected_dice_bits, expected_dice_cut
from carvana_ens.errors import UsageError


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 9) | st.just(0), min_size=2, max_size=17))
def test_the_cut_is_the_best_of_all(reference, counts):
    hist = np.array(counts)
    level, value = expected_dice_cut(hist)
    tried = [reference.expected_dice(hist, k) for k in range(1, hist.size)]
    assert value == max(tried) == reference.expected_dice(hist, level)
    masks = [int(hist[k:].sum()) for k in range(1, hist.size)]
    assert hist[level:].sum() == min(on for on, found in zip(masks, tried, strict=True) if found == value)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([255, 65535]))
def test_the_cut_is_just_above_half_of_the_value(seed, full_scale):
    rng = np.random.default_rng(seed)
    hist = rng.integers(0, rng.integers(1, 10**4), full_scale + 1) * (rng.random(full_scale + 1) < rng.random())
    level, value = expected_dice_cut(hist)
    if hist[1:].any():
        assert Fraction(level - 1, full_scale) <= value / 2 < Fraction(level, full_scale)


def test_the_largest_pictures_do_not_overflow():
    for hist in ([2**29, 0, 2**29], [1, 2**30 - 1], [2**30 - 2, 1]):
        wide = np.zeros(65536, np.int64)
        wide[[0, -1] if len(hist) == 2 else [0, 40000, -1]] = hist
        level, value = expected_dice_cut(wide)
        assert value == Fraction(1)
        assert 32767 < level <= 65535


def test_sure_and_unsure_pictures():
    hist = np.zeros(256, np.int64)
    hist[[0, 255]] = [1000, 10]
    assert expected_dice_cut(hist) == (128, 1)
    hist[:] = 0
    hist[[0, 51]] = 100  # each pixel an object with probability 1/5, and as many that are none: all of them on
    assert expected_dice_cut(hist) == (43, Fraction(1, 3))
    hist[51] = 0
    assert expected_dice_cut(hist) == (255, 1)  # nothing anywhere: an empty mask
    tie = np.array([0, 3, 0, 0, 3])  # 1/4 and 1: without the unsure ones 2 * 3 / (3 + 3.75) = 8/9, half is above 1/4
    assert expected_dice_cut(tie) == (2, Fraction(8, 9))
    tie = np.array([1, 1, 1])  # the pixel of 1/2 is worth 2/2 = 1 > 2/2.5: on
    assert expected_dice_cut(tie) == (1, Fraction(6, 7))
    tie = np.array([0, 4, 0, 0, 0, 0, 0, 0, 1])  # 2 / (1 + 1.5) = 4/5, half 2/5 > 1/8
    assert expected_dice_cut(tie) == (4, Fraction(4, 5))
    tie = np.array([0, 0, 2, 0, 1])  # 2 / (1 + 2) = 2/3, half 1/3 < 1/2
    assert expected_dice_cut(tie) == (2, Fraction(4, 5))
    tie = np.array([0, 3, 0, 1])  # 2 / (1 + 2) = 2/3, half is 1/3: three pixels that change nothing stay off
    assert expected_dice_cut(tie) == (2, Fraction(2, 3))


def test_it_is_the_expectation_where_pixels_are_independent_and_many(reference):
    """The ratio of expectations comes near the expectation of the ratio, and so does the best mask."""
    rng = np.random.default_rng(3)
    levels = np.sort(rng.integers(0, 256, 4000))
    hist = np.bincount(levels, minlength=256)
    level, value = expected_dice_cut(hist)
    draws = rng.random((400, levels.size)) < levels / 255
    means = {}
    for cut in (level - 40, level, level + 40):
        on = levels >= cut
        means[cut] = float(np.mean(2 * (draws & on).sum(1) / (on.sum() + draws.sum(1))))
    assert means[level] == pytest.approx(float(value), abs=0.003)
    assert means[level] == max(means.values())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blends_are_cut_at_their_levels(reference, dtype):
    full_scale = int(np.iinfo(dtype).max)
    for weights, pixels in itertools.product(([1], [5, 1, 3], [1, 0, 2]), (1, 64, 65, 777)):
        factors = np.array(weights, np.uint32)
        for kind, codes in reference.code_kinds(len(weights), pixels, dtype, full_scale // 2).items():
            levels = reference.sums(codes, weights) // sum(weights)
            level, value = expected_dice_cut(np.bincount(levels, minlength=full_scale + 1))
            assert blend_cut(codes, factors) == (level, value), (kind, weights, pixels)
            assert np.array_equal(expected_dice_bits(codes, factors), reference.bits_of(levels >= level))


@pytest.mark.parametrize("hist", [np.zeros(1, np.int64), np.zeros(256), np.zeros((2, 9), np.int64), np.array([3, -1])])
def test_what_is_no_histogram(hist):
    with pytest.raises(UsageError, match="give int64"):
        expected_dice_cut(hist)
