"""Axes of charts: where values stand, and what is written beside them."""

from __future__ import annotations

import math

import pytest

from carvana_ens.output.scales import linear, logarithmic, nines, round_steps

RANGES = [(0.0, 1.0), (0.013, 0.9), (1e-6, 0.5), (0.2, 0.2), (-1.0, 3.0), (0.0, 0.0), (1e-9, 2e-9), (123.0, 123456.0)]


@pytest.mark.parametrize(
    ("least", "greatest", "most", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1, 4, [0, 0.5, 1]),
        (3, 37, 10, [5, 10, 15, 20, 25, 30, 35]),
        (-0.02, 0.031, 5, [-0.02, 0, 0.02]),
        (0.1, 0.3, 2, [0.1, 0.2, 0.3]),
        (7, 7, 5, [7]),
        (990, 1000, 5, [990, 992, 994, 996, 998, 1000]),
    ],
)
def test_round_steps(least, greatest, most, expected):
    assert round_steps(least, greatest, most) == expected


@pytest.mark.parametrize("scale", [linear, logarithmic, nines])
@pytest.mark.parametrize(("least", "greatest"), RANGES)
def test_values_and_ticks_lie_between_the_ends_and_rise(scale, least, greatest):
    if scale is nines and greatest > 1:
        least, greatest = 0.2, 1.0
    axis = scale(least, greatest)
    places = [axis.place(value) for value, _ in axis.ticks]
    assert axis.least < axis.place(least) <= axis.place(greatest) < axis.greatest
    assert all(axis.least <= place <= axis.greatest for place in places)
    assert places == sorted(set(places))
    assert 1 <= len(places) <= 12
    assert all(float(text) == pytest.approx(value, rel=1e-4, abs=1e-12) for value, text in axis.ticks)


def test_the_plain_scale_is_linear():
    axis = linear(2.0, 4.0)
    assert axis.place(3.0) - axis.place(2.0) == axis.place(4.0) - axis.place(3.0) == 1
    assert [text for _, text in axis.ticks] == ["2", "2.5", "3", "3.5", "4"]


def test_a_logarithmic_scale_has_equal_factors_in_equal_steps():
    axis = logarithmic(0.01, 1.0)
    assert axis.place(1.0) - axis.place(0.1) == pytest.approx(axis.place(0.1) - axis.place(0.01))
    assert [text for _, text in axis.ticks] == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]
    assert [text for _, text in logarithmic(1e-5, 0.1).ticks] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]


@pytest.mark.parametrize(("least", "greatest"), [(0.0, 1.0), (-1.0, 100.0), (1.0, 2.9)])
def test_a_logarithmic_scale_is_plain_where_it_must_be_or_would_say_little(least, greatest):
    assert logarithmic(least, greatest).ticks == linear(least, greatest).ticks


def test_nines_are_equally_far_apart():
    axis = nines(0.5, 0.999)
    assert axis.place(0.99) - axis.place(0.9) == pytest.approx(1)
    assert axis.place(0.999) - axis.place(0.99) == pytest.approx(1)
    texts = [text for _, text in axis.ticks]
    assert texts == ["0.5", "0.8", "0.9", "0.95", "0.98", "0.99", "0.995", "0.998", "0.999"]
    assert math.isfinite(axis.place(1.0))
    assert nines(0.0, 0.0).place(0.0) == 0


def test_narrow_ranges_of_dice_have_ticks_too():
    texts = [text for _, text in nines(0.9921, 0.9928).ticks]
    assert texts == ["0.9922", "0.9924", "0.9926", "0.9928"]
