"""Outlines drawn again by matplotlib, pixel centre by pixel centre, and their pieces counted by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from matplotlib.path import Path as Outline
from scipy import ndimage

from carvana_ens.output.contours import polygons


def inside(ring, shape):
    y, x = np.indices(shape) + 0.5
    closed = Outline(np.vstack([ring, ring[:1]]), closed=True)
    return closed.contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(shape)


def check(mask):
    found = polygons(mask)
    pieces, count = ndimage.label(mask)
    assert len(found) == count
    seen = set()
    for outer, *holes in found:
        drawn_again = inside(outer, mask.shape)
        for hole in holes:
            assert drawn_again[inside(hole, mask.shape)].all()  # each hole is in its own outer ring
            drawn_again &= ~inside(hole, mask.shape)
        (piece,) = {*pieces[drawn_again & mask].tolist()} - seen or {0}
        seen.add(piece)
        assert np.array_equal(drawn_again, pieces == piece)
    assert seen == set(range(1, count + 1))


@given(mask=drawn.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask(mask):
    check(mask)


def test_rings_in_rings():
    y, x = np.indices((60, 80))
    distance = np.maximum(abs(y - 30), abs(x - 40))
    check(distance % 12 < 6)
    check(np.hypot(y - 30, x - 40) % 9 < 5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_full_and_empty(shape):
    assert polygons(np.zeros(shape, bool)) == []
    ((outer,),) = polygons(np.ones(shape, bool))
    assert outer.min() == 0
    assert tuple(outer.max(axis=0)) == shape[::-1]


def test_sides_have_two_corners():
    ((outer,),) = polygons(np.ones((40, 50), bool))
    assert len(outer) == 8  # corners are cut by half a pixel
