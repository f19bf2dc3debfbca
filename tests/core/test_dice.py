from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.core.dice import counts, dice, dice_from_counts
from carvana_ens.core.rle import mask_bits
from carvana_ens.errors import DataError, UsageError


def test_dice_equals_the_twin(reference):
    masks = reference.corner_masks()
    by_size = {}
    for mask in masks.values():
        by_size.setdefault(mask.shape, []).append(mask)
    for same in by_size.values():
        for a in same:
            for b in same:
                assert counts(mask_bits(a), mask_bits(b)) == reference.count_common(a, b)
                assert dice(a, b) == reference.dice(a, b)


def test_known_values():
    a = np.array([[True, True, False, False]])
    b = np.array([[True, False, True, False]])
    nothing = np.zeros((1, 4), np.bool_)
    assert dice(a, a) == 1
    assert dice(a, b) == 0.5
    assert dice(a, ~a) == 0
    assert dice(nothing, nothing) == 1
    assert dice(nothing, a) == 0


def test_counts_as_arrays():
    assert dice_from_counts(1, 2, 2) == 0.5
    assert isinstance(dice_from_counts(0, 0, 0), float)
    values = dice_from_counts(np.array([0, 1, 2]), np.array([0, 2, 2]), np.array([0, 1, 2]))
    assert values.tolist() == [1.0, 2 / 3, 1.0]
    assert dice_from_counts(np.array([0, 1]), np.array([3, 3]), 1).tolist() == [0.0, 0.5]


def test_masks_that_cannot_be_compared_are_refused():
    with pytest.raises(DataError, match="masks of 2x3 and 3x2 cannot be compared"):
        dice(np.ones((2, 3), np.bool_), np.ones((3, 2), np.bool_))
    with pytest.raises(UsageError, match="a mask is a bool array"):
        dice(np.ones((2, 3)), np.ones((2, 3), np.bool_))
    with pytest.raises(DataError, match="1 and 2 bit words cannot be compared"):
        counts(np.zeros(1, np.uint64), np.zeros(2, np.uint64))
