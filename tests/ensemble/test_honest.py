"""Honest scores of made searches whose true worth is known."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest

from carvana_ens.ensemble.bootstrap import gain, mean_interval
from carvana_ens.ensemble.honest import Choice, dealt_groups, honest_gain, honest_interval, nested
from carvana_ens.errors import DataError, UsageError

MEMBERS = "abcdef"
EQUAL = Choice(dict.fromkeys(MEMBERS, 1), "0.5")
IDS = [f"{car}_{view}" for car in range(40) for view in range(4)]
GROUPS = {image_id: image_id.split("_")[0] for image_id in IDS}


class Made:
    """Scores of members that are one member plus noise by car and by photo; ``extra`` is planted on the first."""

    def __init__(self, seed: int, extra: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        noise = np.repeat(rng.normal(0, 0.002, (40, 6)), 4, axis=0) + rng.normal(0, 0.004, (160, 6))
        noise[:, 0] += extra
        self.scores = np.repeat(rng.normal(0.98, 0.01, 40), 4)[:, None] + noise
        self.place = {image_id: number for number, image_id in enumerate(IDS)}

    def rows(self, ids):
        return self.scores[[self.place[image_id] for image_id in ids]]

    def search(self, ids):
        """Two parts of the member that is best on these images and one of the next: all that it finds may be noise."""
        best, second = np.argsort(-self.rows(ids).mean(0))[:2]
        weights = dict.fromkeys(MEMBERS, 0) | {MEMBERS[best]: 2, MEMBERS[second]: 1}
        return Choice(weights, "0.5")

    def score(self, choice, ids):
        weights = np.array([choice.weights[member] for member in MEMBERS])
        return dict(zip(ids, (self.rows(ids) @ weights / weights.sum()).tolist(), strict=True))


def test_nothing_of_a_group_is_seen_before_it_is_scored():
    made, seen = Made(0), []
    folds = dealt_groups(GROUPS, 5)

    def search(ids):
        seen.append(ids)
        return made.search(ids)

    def score(choice, ids):
        scored.append((choice, ids))
        return made.score(choice, ids)

    scored = []
    found = nested(search, score, GROUPS, folds)
    assert len(seen) == len(scored) == 6
    for fold, searched, (choice, ids) in zip(range(5), seen, scored, strict=False):
        assert {GROUPS[i] for i in ids} == {group for group, number in folds.items() if number == fold}
        assert searched == [i for i in IDS if i not in set(ids)]
        assert choice == found.choices[fold] == made.search(searched)
        assert {i: found.by_image[i] for i in ids} == made.score(choice, ids)
    assert seen[-1] == IDS == list(found.by_image)
    assert found.choice == made.search(IDS)
    assert found.tuned == pytest.approx(fmean(made.score(found.choice, IDS).values()), abs=1e-15)
    assert found.honest == pytest.approx(fmean(found.by_image.values()), abs=1e-15)
    assert found.optimism == found.tuned - found.honest


def test_of_clones_the_gain_covers_zero_and_what_was_fitted_is_optimism():
    covered = narrow = 0
    optimism, gains = [], []
    for seed in range(100):
        made, folds = Made(seed), dealt_groups(GROUPS, 5, seed)
        tuned = nested(made.search, made.score, GROUPS, folds)
        equal = nested(lambda _: EQUAL, made.score, GROUPS, folds)
        found = honest_gain(tuned, equal, GROUPS, resamples=1000)
        assert found == honest_gain(tuned, made.score(EQUAL, IDS), GROUPS, resamples=1000)
        covered += not found.excludes(0)
        narrow += not gain(tuned.by_image, equal.by_image, GROUPS, resamples=1000).excludes(0)
        optimism.append(tuned.optimism)
        gains.append(found.mean)
        assert equal.optimism == pytest.approx(0, abs=1e-15)
    assert covered >= 90
    assert narrow < 90  # why the interval is widened
    error = np.std(gains) / 10
    assert abs(np.mean(gains)) < 3 * error
    assert np.mean(optimism) > 5 * error


def test_a_planted_difference_excludes_zero():
    for seed in range(20):
        made, folds = Made(seed, extra=0.006), dealt_groups(GROUPS, 5, seed)
        tuned = nested(made.search, made.score, GROUPS, folds)
        found = honest_gain(tuned, made.score(EQUAL, IDS), GROUPS)
        assert found.low > 0


def test_intervals_are_wider_by_the_correction():
    made = Made(3)
    found = nested(made.search, made.score, GROUPS, dealt_groups(GROUPS, 5))
    plain = mean_interval(found.by_image, GROUPS, seed=4)
    wide = honest_interval(found, GROUPS, seed=4)
    factor = (1 + 5 * 8 / 32) ** 0.5
    assert wide.mean == plain.mean
    assert wide.high - wide.mean == pytest.approx(factor * (plain.high - plain.mean), rel=1e-12)
    assert wide.mean - wide.low == pytest.approx(factor * (plain.mean - plain.low), rel=1e-12)


def test_groups_that_are_never_held_out_are_tuned_on_only():
    made = Made(1)
    folds = {str(car): car % 3 - 1 for car in range(40)}
    found = nested(made.search, made.score, GROUPS, folds)
    scored = [i for i in IDS if folds[GROUPS[i]] >= 0]
    assert list(found.by_image) == list(found.tuned_by_image) == scored
    assert sorted(found.choices) == [0, 1]
    assert found.choices[0] == made.search([i for i in IDS if folds[GROUPS[i]] != 0])
    # 26 groups are scored, 13 a fold, 27 tuned on
    wide, plain = honest_interval(found, GROUPS), mean_interval(found.by_image, GROUPS)
    assert (wide.high - wide.mean) / (plain.high - plain.mean) == pytest.approx((1 + 2 * 13 / 27) ** 0.5)


def test_too_few_groups_for_an_interval():
    made = Made(2)
    some = {i: group for i, group in GROUPS.items() if group in set("0123")}
    found = nested(made.search, made.score, some, dealt_groups(some, 2))
    assert honest_interval(found, some).reason == "no interval: it takes 5 groups, there are 4"


def test_groups_are_dealt_evenly_and_by_the_seed():
    for folds in (2, 5, 7, 40):
        counts = np.bincount(list(dealt_groups(GROUPS, folds).values()))
        assert counts.size == folds
        assert counts.max() - counts.min() <= 1
    assert dealt_groups(GROUPS) == dealt_groups(dict(reversed(GROUPS.items())))
    assert dealt_groups(GROUPS, 5, 0) != dealt_groups(GROUPS, 5, 1)
    for folds in (1, 41):
        with pytest.raises(UsageError, match=f"{folds} folds cannot be made of 40 groups: ask for 2..40"):
            dealt_groups(GROUPS, folds)


def test_what_cannot_be_meant():
    made = Made(0)
    with pytest.raises(DataError, match="39 groups have no fold: '1', '10'"):
        nested(made.search, made.score, GROUPS, {"0": 0})
    with pytest.raises(UsageError, match="takes two folds with images, got 1"):
        nested(made.search, made.score, GROUPS, dict.fromkeys(map(str, range(40)), 0) | {"0": -1})
    with pytest.raises(UsageError, match=r"32 images were to be scored, first '.*', and 31 were"):
        nested(made.search, lambda c, ids: made.score(c, ids[1:]), GROUPS, dealt_groups(GROUPS))
