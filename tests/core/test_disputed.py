"""Disputed pixels: every count made of them equals the slow twin's on the whole maps."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.core.disputed import DisputedPixels, disputed_pixels
from carvana_ens.core.rle import mask_bits
from carvana_ens.errors import DataError, UsageError

PIXELS = [1, 63, 64, 65, 128, 200, 1000]
DTYPES = {np.uint8: 255, np.uint16: 65535}
HALF = Fraction(1, 2)


def flat(bits, pixels):
    return np.unpackbits(bits.view(np.uint8), bitorder="little")[:pixels].astype(bool)


def kept(images, truths, low, high):
    """The disputed pixels of several images, put side by side as the docstrings say."""
    parts = [
        disputed_pixels(codes, mask_bits(truth[None]), low, high) for codes, truth in zip(images, truths, strict=True)
    ]
    return DisputedPixels(
        codes=np.concatenate([part.codes.ravel() for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        starts=np.cumsum([0, *(part.truth.size for part in parts)]),
        constants=np.array([part.constants for part in parts]),
        members=len(images[0]),
        low=low,
        high=high,
    )


def cut_of(threshold, full_scale, weights):
    return math.ceil(threshold * full_scale * int(np.sum(weights, dtype=np.int64)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", PIXELS)
def test_kept_pixels_equal_the_twin(reference, dtype, pixels):
    full_scale = DTYPES[dtype]
    ranges = [(1, full_scale), (full_scale // 4, 3 * full_scale // 4), (full_scale // 2, full_scale // 2)]
    rng = np.random.default_rng(pixels)
    for members in (1, 3):
        for kind, codes in reference.code_kinds(members, pixels, dtype, full_scale // 2).items():
            for truth in (np.zeros(pixels, bool), np.ones(pixels, bool), rng.random(pixels) < 0.5):
                for low, high in ranges:
                    found = disputed_pixels(codes, mask_bits(truth[None]), low, high)
                    disputed, constants = reference.find_disputed(codes, truth, low, high)
                    expected_codes, expected_truth = reference.take_disputed(codes, truth, disputed)
                    assert found.kept == disputed.sum(), kind
                    assert found.constants == constants, kind
                    assert found.codes.dtype == dtype
                    assert np.array_equal(found.codes, expected_codes), kind
                    assert np.array_equal(flat(found.truth, found.truth.size * 64), expected_truth), kind


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_pixels_of_a_space_are_those_of_its_values(reference, dtype):
    full_scale = DTYPES[dtype]
    rng = np.random.default_rng(9)
    steps = rng.integers(0, 2 * 65535 // full_scale + 1, (3, full_scale + 1)) * (rng.random(full_scale + 1) < 0.5)
    tables = np.minimum(1 + steps.cumsum(1), 65535).astype(np.uint16)  # code 0 counts: pixels that fill up must not
    for pixels in PIXELS:
        for kind, codes in reference.code_kinds(3, pixels, dtype, full_scale // 2).items():
            values = reference.values_of(tables, codes).astype(np.uint16)
            truth = rng.random(pixels) < 0.5
            for low, high in ((1, 65535), (16384, 49151), (32768, 32768)):
                found = disputed_pixels(codes, mask_bits(truth[None]), low, high, tables)
                disputed, constants = reference.find_disputed(values, truth, low, high)
                expected_values, expected_truth = reference.take_disputed(values, truth, disputed)
                assert (found.kept, found.constants) == (disputed.sum(), constants), kind
                assert found.codes.dtype == np.uint16
                assert np.array_equal(found.codes, expected_values), kind
                assert np.array_equal(flat(found.truth, found.truth.size * 64), expected_truth), kind


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([2, 3, 128, 255, 256, 4000]),
    first=st.integers(1, 9),
    weights=st.lists(st.integers(0, 16384), min_size=3, max_size=3).filter(any),
)
def test_levels_in_steps(reference, seed, step, first, weights):
    """Codes on both sides of every level, so that sums fall beside multiples of W step."""
    rng = np.random.default_rng(seed)
    levels = range(first * step, min(65535, (first + 7) * step) + 1, step)
    codes = rng.choice([*levels], (3, 300)) + rng.integers(-1, 2, (3, 300))
    codes = codes.clip(0, 65535).astype(np.uint16)
    truth = rng.random(300) < 0.5
    pixels = dataclasses.replace(kept([codes], [truth], levels[0], levels[-1]), step=step)
    expected = [reference.count_reached(codes, truth, weights, level * sum(weights)) for level in levels]
    assert pixels.level_counts(np.array(weights, np.uint32)).tolist() == [expected]


@st.composite
def worlds(draw):
    """(images, truths, weights, low, high): small pictures of odd sizes, codes near each other and near the range."""
    dtype = draw(st.sampled_from(list(DTYPES)))
    full_scale = DTYPES[dtype]
    members = draw(st.integers(1, 5))
    low = draw(st.integers(1, full_scale))
    high = min(full_scale, low + draw(st.sampled_from([0, 0, 1, 7, 120])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([2, 40, full_scale]))
    images, truths = [], []
    for _ in range(draw(st.integers(1, 4))):
        pixels = draw(st.integers(1, 200))
        codes = low + rng.integers(-spread, spread + 1, (members, pixels))
        images.append(np.ascontiguousarray(codes.clip(0, full_scale).astype(dtype)))
        truths.append(rng.random(pixels) < draw(st.sampled_from([0, 0.3, 1])))
    weights = draw(st.lists(st.integers(0, draw(st.sampled_from([1, 5, 9000]))), min_size=members, max_size=members))
    return images, truths, np.array(weights, np.uint32), low, high


@settings(deadline=None, max_examples=150)
@given(world=worlds(), at=st.fractions(0, 1, max_denominator=50), member=st.integers(0, 4))
def test_every_count_equals_the_whole_maps(reference, world, at, member):
    images, truths, weights, low, high = world
    pixels = kept(images, truths, low, high)
    full_scale = pixels.full_scale
    level = min(low - 1 + at + Fraction(1, 7), Fraction(high)) if at < 1 else Fraction(high)
    level = max(level, low - 1 + Fraction(1, 7))
    threshold = Fraction(level) / full_scale
    both = list(zip(images, truths, strict=True))
    added = pixels.counts_of_each_added(weights, cut_of(threshold, full_scale, [*weights, 1]))
    cut = cut_of(threshold, full_scale, [*weights, 1])
    expected = [reference.count_each_added(codes, truth, weights, cut) for codes, truth in both]
    assert np.array_equal(added, np.swapaxes(expected, 0, 1))
    member %= len(weights)
    rest = int(weights.sum()) - int(weights[member])
    values = range(int(rest == 0), 12)
    line = pixels.line_counts(weights, member, values, threshold)
    expected = [reference.count_flips(codes, truth, weights, member, values, level) for codes, truth in both]
    assert np.array_equal(line, expected)
    if weights.any():
        cut = cut_of(threshold, full_scale, weights)
        expected = [reference.count_reached(codes, truth, weights, cut) for codes, truth in both]
        assert np.array_equal(pixels.counts(weights, cut), expected)
        expected = [reference.count_levels(codes, truth, weights, low, high) for codes, truth in both]
        assert np.array_equal(pixels.level_counts(weights), expected)


def test_some_of_the_images(reference):
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 256, (3, n)).astype(np.uint8) for n in (70, 5, 640, 64)]
    truths = [rng.random(codes.shape[1]) < 0.4 for codes in images]
    pixels = kept(images, truths, 100, 150)
    weights = np.array([2, 0, 5], np.uint32)
    cut = cut_of(HALF, 255, weights)
    some = np.array([2, 0, 3])
    assert np.array_equal(pixels.counts(weights, cut)[some], pixels.counts(weights, cut, some))
    assert np.array_equal(pixels.level_counts(weights)[some], pixels.level_counts(weights, some))
    line = pixels.line_counts(weights, 1, range(9), HALF)
    assert np.array_equal(line[some], pixels.line_counts(weights, 1, range(9), HALF, some))
    added = pixels.counts_of_each_added(weights, cut_of(HALF, 255, [8]))
    assert np.array_equal(added[:, some], pixels.counts_of_each_added(weights, cut_of(HALF, 255, [8]), some))
    assert np.array_equal(line[:, 0], pixels.counts(weights, cut))


def test_the_largest_weights_and_codes(reference):
    codes = np.array([[65535, 65535, 0, 32768], [65535, 0, 65535, 32767]], np.uint16)
    truth = np.array([True, False, True, True])
    pixels = kept([codes], [truth], 1, 65535)
    for weights in ([65535, 1], [1, 65535], [65536, 0]):
        whole = np.array(weights, np.uint32)
        for threshold in (Fraction(1), HALF, Fraction(1, 65535)):
            cut = cut_of(threshold, 65535, weights)
            assert pixels.counts(whole, cut).tolist() == [reference.count_reached(codes, truth, weights, cut)]
        values = range(65500, 65536)
        line = pixels.line_counts(np.array([0, 1], np.uint32), 0, values, HALF)
        assert line.tolist() == [reference.count_flips(codes, truth, [0, 1], 0, values, HALF * 65535)]
    added = pixels.counts_of_each_added(np.array([65534, 1], np.uint32), 65535 * 65536)
    assert added[:, 0].tolist() == reference.count_each_added(codes, truth, [65534, 1], 65535 * 65536)


def test_maps_that_agree_leave_nothing():
    codes = np.repeat(np.array([[0, 255, 255, 0, 255]], np.uint8), 4, 0)
    truth = np.array([False, True, False, True, True])
    pixels = kept([codes], [truth], 64, 192)
    assert pixels.codes.size == 0
    assert pixels.counts(np.ones(4, np.uint32), 4 * 128).tolist() == [[2, 3]]
    assert pixels.level_counts(np.ones(4, np.uint32))[0, ::64].tolist() == [[2, 3]] * 3


@pytest.mark.parametrize(
    ("codes", "low", "high", "told"),
    [
        (np.zeros((2, 4)), 1, 2, "float64"),
        (np.zeros((2, 8), np.uint8)[:, ::2], 1, 2, "C-contiguous"),
        (np.zeros((2, 0), np.uint8), 1, 2, r"\(2, 0\)"),
        (np.zeros((2, 4), np.uint8), 0, 2, r"0\.\.2 are not within 1\.\.255"),
        (np.zeros((2, 4), np.uint8), 3, 2, r"3\.\.2"),
        (np.zeros((2, 4), np.uint8), 3, 256, r"3\.\.256"),
    ],
)
def test_what_cannot_be_kept(codes, low, high, told):
    with pytest.raises(UsageError, match=told):
        disputed_pixels(codes, np.zeros(1, np.uint64), low, high)


def test_truth_of_another_size():
    with pytest.raises(DataError):
        disputed_pixels(np.zeros((2, 65), np.uint8), np.zeros(1, np.uint64), 1, 2)


def test_what_cannot_be_counted():
    codes = np.random.default_rng(1).integers(0, 256, (2, 90)).astype(np.uint8)
    pixels = kept([codes], [codes[0] > 99], 100, 150)
    ones = np.ones(2, np.uint32)
    for bad in (np.ones(3, np.uint32), np.ones(2), np.zeros(2, np.uint32), np.array([65536, 1], np.uint32)):
        with pytest.raises(UsageError, match="weights"):
            pixels.counts(bad, 256)
        with pytest.raises(UsageError, match="weights"):
            pixels.level_counts(bad)
    for cut in (198, 302):
        with pytest.raises(UsageError, match=r"outside the levels 100\.\.150"):
            pixels.counts(ones, cut)
    with pytest.raises(UsageError, match="outside the levels"):
        pixels.line_counts(ones, 0, range(4), Fraction(151, 255))
    for values in (range(0, 4, 2), range(2, 2), range(65537)):
        with pytest.raises(UsageError, match="are no weights"):
            pixels.line_counts(ones, 0, values, HALF)
    with pytest.raises(UsageError, match="are no weights"):
        pixels.line_counts(np.array([3, 0], np.uint32), 0, range(4), HALF)
    with pytest.raises(UsageError, match="too many digits"):
        pixels.line_counts(ones, 0, range(4), Fraction(500001, 1000003))
    for images in ([1], [-1], [[0]], [0.0]):
        with pytest.raises(UsageError, match="images are"):
            pixels.counts(ones, 256, np.array(images))
