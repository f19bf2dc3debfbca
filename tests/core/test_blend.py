from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

from carvana_ens.core.blend import blend_bits, blend_mask, stack_codes
from carvana_ens.core.weights import cut_sum
from carvana_ens.errors import DataError, UsageError

PIXELS = [1, 2, 63, 64, 65, 127, 128, 129, 640, 1000]
WEIGHTS = {
    "one": [1],
    "one of a large weight": [65536],
    "two equal": [1, 1],
    "three skewed": [65533, 2, 1],
    "four": [3, 1, 2, 2],
    "sum 65536": [65536 - 6, 1, 2, 3],
    "with zeros": [0, 3, 0, 2, 0],
    "six": [5, 1, 1, 8, 13, 2],
    "49": list(range(1, 50)),
}
DTYPES = {np.uint8: 255, np.uint16: 65535}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WEIGHTS)
def test_blend_equals_the_twin(reference, dtype, name):
    weights, full_scale = np.array(WEIGHTS[name], np.uint32), DTYPES[dtype]
    for threshold in (Fraction(1, 2), Fraction(128, 255), Fraction(1, 1000), Fraction(1), Fraction(2, 3)):
        cut = cut_sum(threshold, full_scale, int(weights.sum()))
        for pixels in PIXELS:
            at = -(-cut // int(weights.sum()))
            for kind, codes in reference.code_kinds(len(weights), pixels, dtype, at).items():
                expected = reference.bits_of(reference.blend(codes, weights, cut))
                assert np.array_equal(blend_bits(codes, weights, cut), expected), (kind, pixels, threshold)


def test_every_cut_of_a_small_blend(reference):
    weights = np.array([2, 0, 1], np.uint32)
    codes = np.random.default_rng(3).integers(0, 256, (3, 200)).astype(np.uint8)
    for cut in range(1, 255 * 3 + 1):
        assert np.array_equal(blend_bits(codes, weights, cut), reference.bits_of(reference.blend(codes, weights, cut)))


def test_the_largest_sum_fits(reference):
    codes = np.full((2, 70), 65535, np.uint16)
    codes[0, ::3] = 65534
    weights = np.array([65535, 1], np.uint32)
    cut = 65535 * 65536
    assert np.array_equal(blend_bits(codes, weights, cut), reference.bits_of(np.arange(70) % 3 != 0))


def test_a_tie_is_foreground():
    low, high = np.full((1, 2), 127, np.uint8), np.full((1, 2), 128, np.uint8)
    assert blend_mask([low, high], [1, 1], "0.5").all()  # (127 + 128) / 2 = 127.5 = 0.5 * 255
    assert not blend_mask([low, low], [1, 1], "0.5").any()
    assert blend_mask([high], [1], "128/255").all()
    assert not blend_mask([high], [1], "129/255").any()


@pytest.mark.parametrize(
    "dtypes", [[np.uint8] * 5, [np.uint16] * 5, [np.uint8, np.uint16, np.uint8, np.uint8, np.uint16]]
)
def test_the_order_of_members_does_not_matter(reference, dtypes):
    rng = np.random.default_rng(8)
    maps = [rng.integers(0, np.iinfo(dtype).max, (17, 23), endpoint=True).astype(dtype) for dtype in dtypes]
    weights = [4, 0, 7, 1, 2]
    mask = blend_mask(maps, weights, 0.37)
    wide = [codes.reshape(-1).astype(np.int64) * (257 if codes.dtype == np.uint8 else 1) for codes in maps]
    expected = reference.blend(np.stack(wide), weights, cut_sum(Fraction(37, 100), 65535, sum(weights)))
    assert np.array_equal(mask.reshape(-1), expected)
    for _ in range(5):
        order = rng.permutation(5)
        assert np.array_equal(blend_mask([maps[i] for i in order], [weights[i] for i in order], 0.37), mask)


def test_threads_blend_alike(reference):
    weights = np.array([2, 3, 1], np.uint32)
    stacks = [np.random.default_rng(seed).integers(0, 256, (3, 999)).astype(np.uint8) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        blends = list(pool.map(lambda codes: blend_bits(codes, weights, 765), stacks))
    for codes, bits in zip(stacks, blends, strict=True):
        assert np.array_equal(bits, reference.bits_of(reference.blend(codes, weights, 765)))


def test_scaled_weights_blend_alike():
    maps = list(np.random.default_rng(9).integers(0, 256, (3, 12, 11)).astype(np.uint8))
    assert np.array_equal(blend_mask(maps, [1, 2, 3], 0.5), blend_mask(maps, [10**6, 2 * 10**6, 3 * 10**6], 0.5))


def test_maps_need_not_lie_row_by_row_nor_be_writable():
    codes = np.random.default_rng(1).integers(0, 256, (30, 20)).astype(np.uint8)
    frozen = codes.copy()
    frozen.flags.writeable = False
    assert np.array_equal(blend_mask([codes.T], [1], 0.5).T, codes >= 128)
    assert np.array_equal(blend_mask([frozen], [1], 0.5), codes >= 128)
    stack = frozen.reshape(1, -1)
    assert np.array_equal(
        blend_bits(stack, np.array([1], np.uint32), 128), blend_bits(stack.copy(), np.array([1], np.uint32), 128)
    )


def test_stacking():
    small, large = np.array([[0, 1, 255]], np.uint8), np.array([[0, 1, 65535]], np.uint16)
    codes, full_scale = stack_codes([small, small])
    assert (codes.dtype, codes.shape, full_scale) == (np.uint8, (2, 3), 255)
    codes, full_scale = stack_codes([small, large])
    assert codes.dtype == np.uint16
    assert full_scale == 65535
    assert codes.tolist() == [[0, 257, 65535], [0, 1, 65535]]


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        ([], UsageError, "no maps to blend"),
        ([np.zeros((2, 2))], UsageError, "map 0 is float64"),
        ([np.zeros((2, 2), np.uint8), np.zeros(4, np.uint8)], UsageError, "map 1 is uint8"),
        ([np.zeros((2, 0), np.uint8)], UsageError, "map 0 is uint8"),
        ([None], UsageError, "map 0 is NoneType"),
        ([np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)], DataError, "map 1 is 3x2, map 0 is 2x3"),
    ],
)
def test_maps_that_cannot_be_stacked_are_refused(maps, error, message):
    with pytest.raises(error, match=message):
        stack_codes(maps)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0, 0], "weights sum to 0"),
        ([1, -1], "weight -1 is no whole number"),
        ([0.5, 0.5], "weight 0.5 is no whole number"),
        ([True, 1], "weight True is no whole number"),
        ([65536, 1], "weights sum to 65537"),
        ([1], r"they must be uint32 \(2,\)"),
        ([], "weights sum to 0"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(weights, message):
    with pytest.raises(UsageError, match=message):
        blend_mask([np.zeros((2, 2), np.uint8)] * 2, weights, 0.5)


@pytest.mark.parametrize(
    ("codes", "weights", "cut", "message"),
    [
        (np.zeros((2, 4), np.int16), np.ones(2, np.uint32), 1, "codes are int16"),
        (np.zeros((2, 2, 2), np.uint8), np.ones(2, np.uint32), 1, "codes are uint8"),
        (np.zeros((0, 4), np.uint8), np.ones(0, np.uint32), 1, "codes are uint8"),
        (np.zeros((4, 2), np.uint8).T, np.ones(2, np.uint32), 1, "not C-contiguous"),
        (np.zeros((2, 4), np.uint8), np.ones(2, np.int64), 1, "weights are int64"),
        (np.zeros((2, 4), np.uint8), np.full(2, 2**31, np.uint32), 1, "weights sum to 4294967296"),
        (np.zeros((2, 4), np.uint8), np.ones(2, np.uint32), 0, r"cut_sum 0 is not in 1\.\.510"),
        (np.zeros((2, 4), np.uint8), np.ones(2, np.uint32), 511, r"cut_sum 511 is not in 1\.\.510"),
    ],
)
def test_stacks_that_cannot_be_blended_are_refused(codes, weights, cut, message):
    with pytest.raises(UsageError, match=message):
        blend_bits(codes, weights, cut)
