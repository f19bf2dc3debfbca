"""Tables of blending spaces, against formulas written anew and another library's fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.core.space_tables import (
    COLDEST,
    HOTTEST,
    fitted_temperature,
    logit_table,
    rank_table,
    temperature_table,
    vote_table,
)
from carvana_ens.errors import DataError

SCALES = [255, 65535]
NOTHING = np.zeros(256, np.int64)


@pytest.mark.parametrize("full_scale", SCALES)
def test_logits_lie_evenly_between_the_ends(full_scale):
    values = logit_table(full_scale).values.astype(np.int64)
    assert values[0] == 0
    assert values[-1] == 65535
    top = math.log(509)
    for code in [*range(0, full_scale + 1, max(1, full_scale // 255)), 1, full_scale - 1]:
        p = min(max(code / full_scale, 1 / 510), 509 / 510)
        assert abs(values[code] - 65535 * (math.log(p / (1 - p)) + top) / (2 * top)) <= 0.5000001
        assert abs(values[code] + values[full_scale - code] - 65535) <= 1


def test_both_dtypes_have_the_same_logits():
    assert np.array_equal(logit_table(255).values, logit_table(65535).values[::257])


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=256, max_size=256).filter(any))
def test_mid_ranks(counts):
    values = rank_table(np.array(counts)).values
    total, below = sum(counts), 0
    for code, count in enumerate(counts):
        share = 65535 * (2 * below + count)
        assert abs(2 * total * int(values[code]) - share) <= total  # within half a value, in whole numbers
        below += count


def test_ranks_of_few_pixels():
    hist = NOTHING.copy()
    hist[[10, 20, 30]] = [1, 2, 1]
    values = rank_table(hist).values
    assert values[[0, 9, 10, 11, 19, 20, 21, 30, 31, 255]].tolist() == [
        *(0, 0),
        8192,  # 1/8
        *(16384, 16384),  # 1/4, nearest
        32768,
        *(49151, 57343, 65535, 65535),
    ]


def scikit_temperature(object_hist, other_hist):
    """1 / the coefficient of an unpenalised logistic regression on the logits, without intercept."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    codes = np.arange(256)
    p = (codes / 255).clip(1 / 510, 509 / 510)
    z = np.log(p / (1 - p))
    model = linear_model.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    model.fit(np.r_[z, z][:, None], np.r_[np.ones(256), np.zeros(256)], np.r_[object_hist, other_hist])
    return 1 / model.coef_[0, 0]


@pytest.mark.parametrize("temperature", [0.4, 0.8, 1, 1.7, 3])
def test_temperatures_equal_another_librarys(temperature):
    rng = np.random.default_rng(int(10 * temperature))
    codes = np.arange(256)
    p = (codes / 255).clip(1 / 510, 509 / 510)
    every = rng.integers(1000, 50_000, 256)
    objects = rng.binomial(every, 1 / (1 + ((1 - p) / p) ** (1 / temperature)))
    found = fitted_temperature(objects, every - objects)
    assert found == pytest.approx(temperature, rel=0.02)
    assert found == pytest.approx(scikit_temperature(objects, every - objects), rel=1e-4)


def test_temperatures_have_bounds():
    right, wrong = NOTHING.copy(), NOTHING.copy()
    right[200:], wrong[:50] = 10, 10
    assert fitted_temperature(right, wrong) == pytest.approx(COLDEST, rel=1e-5)
    assert fitted_temperature(wrong, right) == pytest.approx(HOTTEST, rel=1e-5)


@pytest.mark.parametrize("full_scale", SCALES)
def test_values_of_a_temperature(full_scale):
    objects = np.linspace(0, 10**5, full_scale + 1).astype(np.int64) ** 2 // 10**5
    table = temperature_table(objects, 10**5 - objects)
    values, temperature = table.values.astype(np.int64), table.parameters["temperature"]
    assert temperature == fitted_temperature(objects, 10**5 - objects)
    assert values[[0, -1]].tolist() == [0, 65535]
    for code in range(1, full_scale, max(1, full_scale // 255)):
        odds = (code / (full_scale - code)) ** (1 / temperature)
        assert abs(values[code] - 65535 * odds / (1 + odds)) <= 0.5000001


def test_a_temperature_of_one_keeps_probabilities():
    objects = np.arange(256) * 100
    table = temperature_table(objects, objects[::-1].copy())
    assert table.parameters["temperature"] == pytest.approx(1, abs=0.002)
    assert np.abs(table.values - 257.0 * np.arange(256)).max() < 0.002 * 65535


def test_votes():
    assert vote_table(255, 255).values.tolist() == [0] * 255 + [65535]
    assert vote_table(1, 255).values.tolist() == [0] + [65535] * 255
    table = vote_table(32896, 65535)
    assert np.flatnonzero(np.diff(table.values)).tolist() == [32895]
    assert table.parameters == {"threshold": "32896/65535"}


def test_nothing_to_fit_on():
    for make in (lambda: rank_table(NOTHING), lambda: temperature_table(NOTHING, NOTHING)):
        with pytest.raises(DataError, match="no pixel to fit"):
            make()
