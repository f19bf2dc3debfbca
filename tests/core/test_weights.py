from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carvana_ens.core.weights import (
    MAX_WEIGHT_SUM,
    cut_sum,
    integer_weights,
    parse_threshold,
    parse_weights,
    threshold_text,
)
from carvana_ens.errors import UsageError

POSITIVE = st.fractions(min_value=0, max_value=1000, max_denominator=10**6)
WEIGHTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), POSITIVE, min_size=1, max_size=49).filter(
    lambda weights: any(weights.values())
)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("a=2,b=1/3,c=0.5", {"a": 2, "b": Fraction(1, 3), "c": Fraction(1, 2)}),
        (" a = 1e-3 , b=2.E1,c=.25", {"a": Fraction(1, 1000), "b": 20, "c": Fraction(1, 4)}),
        ("z=0,a=0.1", {"z": 0, "a": Fraction(1, 10)}),
        ("rn4_1280=00.30", {"rn4_1280": Fraction(3, 10)}),
    ],
)
def test_weights_are_taken_exactly(text, weights):
    assert parse_weights(text) == weights
    assert list(parse_weights(text)) == list(weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no weights are given"),
        ("  ", "no weights are given"),
        ("a", "weight 'a' in 'a' is not name=weight"),
        ("a=", "weight 'a=' in 'a=' is not name=weight"),
        ("=1", "weight '=1' in '=1' is not name=weight"),
        ("a=1,,b=2", "weight '' in 'a=1,,b=2' is not name=weight"),
        ("a=1,b=2,a=1", "name 'a' twice"),
        ("a=-1,b=2", "weight of 'a' is -1: weights are 0 or more"),
        ("a=-1/3,b=2", "weight of 'a' is -1/3: weights are 0 or more"),
        ("a=0,b=0.0", r"all weights are 0 \(a, b\)"),
        *((f"a={bad}", f"weight of 'a' is '{bad}', which is no decimal") for bad in ("nan", "inf", "x", "1_0", "1/0")),
        *((f"a={bad}", f"weight of 'a' is '{bad}', which is no") for bad in ("1e999999999", "1/-3", "0x1", ".", "²")),
    ],
)
def test_broken_weights_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_weights(text)


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ({"a": 2, "b": Fraction(1, 3)}, {"a": 6, "b": 1}),
        ({"a": Fraction(1, 2), "b": Fraction(1, 2), "c": 0}, {"a": 1, "b": 1, "c": 0}),
        ({"a": 10, "b": 20}, {"a": 1, "b": 2}),
        ({"only": Fraction(7, 3)}, {"only": 1}),
        ({"a": 65535, "b": 1}, {"a": 65535, "b": 1}),
        # exact shares of 2**16: 65535.5 and 0.5; a sorts first
        ({"b": 1, "a": 131071}, {"b": 0, "a": 1}),
        ({"a": 1, "b": 131071}, {"a": 1, "b": 65535}),
        # 2**16 / 3 = 21845.33...: the one left over goes to the largest remainder, here b's 0.67
        ({"a": 10**6, "b": 10**6 + 1, "c": 10**6}, {"a": 21845, "b": 21846, "c": 21845}),
    ],
)
def test_whole_weights(weights, whole):
    assert integer_weights({name: Fraction(weight) for name, weight in weights.items()}) == whole


@given(WEIGHTS)
def test_whole_weights_keep_the_proportions(weights):
    whole = integer_weights(weights)
    total, exact_total = sum(whole.values()), sum(weights.values())
    assert list(whole) == list(weights)
    assert 1 <= total <= MAX_WEIGHT_SUM
    assert math.gcd(*whole.values()) == 1
    scale = math.lcm(*(weight.denominator for weight in weights.values()))
    exact = [int(weight * scale) for weight in weights.values()]
    if sum(exact) // math.gcd(*exact) <= MAX_WEIGHT_SUM:
        assert all(Fraction(whole[name], total) == weights[name] / exact_total for name in weights)
    else:
        assert all(
            abs(Fraction(whole[name], total) - weights[name] / exact_total) < Fraction(1, MAX_WEIGHT_SUM)
            for name in weights
        )


@given(WEIGHTS)
def test_the_order_of_members_does_not_matter(weights):
    backwards = dict(reversed(weights.items()))
    assert integer_weights(backwards) == integer_weights(weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [({}, "no weights"), ({"a": Fraction(0)}, "all weights are 0"), ({"a": Fraction(-1), "b": Fraction(2)}, "is -1")],
)
def test_weights_that_blend_nothing_are_refused(weights, message):
    with pytest.raises(UsageError, match=message):
        integer_weights(weights)


@pytest.mark.parametrize(
    ("value", "threshold"),
    [
        ("0.5", Fraction(1, 2)),
        ("128/255", Fraction(128, 255)),
        (" 1 ", Fraction(1)),
        (1, Fraction(1)),
        (0.1, Fraction(1, 10)),
        (1e-3, Fraction(1, 1000)),
        (Fraction(1, 3), Fraction(1, 3)),
        ("5e-1", Fraction(1, 2)),
    ],
)
def test_thresholds_are_taken_exactly(value, threshold):
    assert parse_threshold(value) == threshold


@pytest.mark.parametrize(
    "value", [0, 0.0, "0", -0.1, "-1/2", "1.0001", "256/255", float("nan"), float("inf"), True, "", "half", "1/0", None]
)
def test_thresholds_outside_are_refused(value):
    with pytest.raises(UsageError, match=r"is not in \(0, 1\]"):
        parse_threshold(value)


@given(st.decimals(min_value="0.001", max_value=1, places=3), st.sampled_from([255, 65535]), st.integers(1, 2**16))
def test_the_cut_is_the_least_sum_on_or_over_the_threshold(threshold, full_scale, weight_sum):
    cut = cut_sum(parse_threshold(str(threshold)), full_scale, weight_sum)
    exact = Decimal(full_scale * weight_sum) * threshold
    assert cut - 1 < exact <= cut


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        ("1/2", "0.5"),
        ("210/255", "210/255"),
        ("51/255", "0.2"),
        ("32768/65535", "32768/65535"),
        ("1/7", "1/7"),
        ("1", "1"),
    ],
)
def test_a_threshold_is_shown_as_people_write_it_and_reads_back(threshold, text):
    assert threshold_text(Fraction(threshold)) == text
    assert parse_threshold(text) == Fraction(threshold)
