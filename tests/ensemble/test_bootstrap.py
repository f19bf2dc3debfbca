"""Bootstrap intervals, against scipy and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from carvana_ens.ensemble.bootstrap import gain, mean_interval
from carvana_ens.errors import DataError, UsageError


def alone(values):
    """Scores by image, and groups of one image each."""
    by_image = {f"{number:04d}": float(value) for number, value in enumerate(values)}
    return by_image, {image_id: image_id for image_id in by_image}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "level"), [(5, 0.95), (64, 0.95), (318, 0.9)])
def test_groups_of_one_image_equal_scipy(seed, count, level):
    values = np.random.default_rng([seed, count]).beta(50, 1, count)
    found = mean_interval(*alone(values), level=level, seed=seed, resamples=2000)
    # the same generator draws the same indices there
    there = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    assert found.mean == pytest.approx(values.mean(), abs=1e-15)
    assert (found.low, found.high) == pytest.approx(tuple(there.confidence_interval), abs=1e-13)
    assert (found.images, found.groups, found.level, found.reason) == (count, count, level, None)


def test_whole_groups_are_drawn_with_all_their_images():
    rng = np.random.default_rng(3)
    groups = {f"{car}_{view}": car for car in "abcdefg" for view in range(int(rng.integers(1, 9)))}
    by_image = {image_id: float(rng.random()) for image_id in groups}
    rng, means = np.random.default_rng(8), []
    for draw in rng.integers(0, 7, (300, 7)):
        some = [by_image[i] for number in draw for i in by_image if groups[i] == "abcdefg"[number]]
        means.append(math.fsum(some) / len(some))
    expected = np.percentile(means, [2.5, 97.5])
    found = mean_interval(by_image, groups, resamples=300, seed=8)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-13)
    backwards = dict(reversed(by_image.items()))
    assert mean_interval(backwards, groups, resamples=300, seed=8) == found


def test_copies_of_an_image_within_its_group_make_nothing_surer():
    values = np.random.default_rng(5).random(12)
    few, _ = alone(values)
    many = {f"{image_id}_{copy}": value for image_id, value in few.items() for copy in range(16)}
    found = mean_interval(many, {image_id: image_id[:4] for image_id in many})
    expected = mean_interval(*alone(values))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-13)
    apart = mean_interval(many, {image_id: image_id for image_id in many})
    assert apart.high - apart.low < (found.high - found.low) / 3


def test_large_data_is_drawn_in_parts(monkeypatch):
    scores = alone(np.random.default_rng(6).random(50))
    whole = mean_interval(*scores, resamples=333)
    monkeypatch.setattr("carvana_ens.ensemble.bootstrap._DRAWN", 1000)
    assert mean_interval(*scores, resamples=333) == whole


def test_under_five_groups_there_is_none_and_it_says_so():
    by_image, groups = alone([0.5, 0.25, 0.75, 1.0])
    found = mean_interval(by_image, groups)
    assert (found.mean, found.low, found.high, found.groups) == (0.625, None, None, 4)
    assert found.reason == "no interval: it takes 5 groups, there are 4"
    assert str(found) == "0.625000 (no interval: it takes 5 groups, there are 4)"
    assert not found.excludes(7)
    with_fifth = mean_interval(by_image | {"e": 0.5}, groups | {"e": "e"})
    assert with_fifth.reason is None
    assert with_fifth.excludes(7)


def test_words():
    assert str(mean_interval(*alone([0.5] * 5))) == "0.500000 (95 %: 0.500000 to 0.500000)"


def test_a_gain_is_the_interval_of_the_differences():
    rng = np.random.default_rng(1)
    groups = {f"{car}_{view}": str(car) for car in range(20) for view in range(4)}
    cars = {str(car): rng.normal(0, 0.1) for car in range(20)}
    theirs = {i: 0.9 + cars[car] for i, car in groups.items()}
    ours = {i: score + 0.001 + rng.normal(0, 0.001) for i, score in theirs.items()}
    found = gain(ours, theirs, groups)
    assert found == mean_interval({i: ours[i] - theirs[i] for i in groups}, groups)
    assert found.low > 0
    assert found.excludes(0)
    # apart, they are not to be told from each other
    assert mean_interval(ours, groups).low < mean_interval(theirs, groups).mean
    assert gain(theirs, ours, groups).mean == pytest.approx(-found.mean, abs=1e-15)
    assert str(gain(ours, ours, groups)) == "0.000000 (95 %: 0.000000 to 0.000000)"


def test_what_cannot_be_meant():
    by_image, groups = alone([0.1] * 6)
    with pytest.raises(DataError, match="at least one image"):
        mean_interval({}, groups)
    with pytest.raises(DataError, match=r"2 of 8 scored images have no group: 'x', 'y'"):
        mean_interval(by_image | {"x": 1.0, "y": 1.0}, groups)
    with pytest.raises(DataError, match="1 of 6 scores are not finite: '0003'"):
        mean_interval(by_image | {"0003": math.nan}, groups)
    with pytest.raises(DataError, match=r"1 have one score only: '0000'"):
        gain(by_image, {i: s for i, s in by_image.items() if i != "0000"}, groups)
    with pytest.raises(UsageError, match="a level of 95 is no confidence"):
        mean_interval(by_image, groups, level=95)
    with pytest.raises(UsageError, match="at least one resample, got 0"):
        mean_interval(by_image, groups, resamples=0)
