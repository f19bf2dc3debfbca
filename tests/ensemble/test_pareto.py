"""What members buy and cost, against every ensemble there is."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import numpy as np
import pytest

from carvana_ens.ensemble.bootstrap import gain
from carvana_ens.ensemble.honest import Choice
from carvana_ens.ensemble.pareto import (
    Ensemble,
    MemberCost,
    dispensable,
    ensembles,
    front,
    leave_one_out,
    pick,
    restricted,
)
from carvana_ens.errors import UsageError

IDS = [f"{car}_{view}" for car in range(30) for view in range(4)]
GROUPS = {image_id: image_id.split("_")[0] for image_id in IDS}


def made(worth, seed=0):
    """Scores of members that each add what they are worth, with noise by image."""
    rng = np.random.default_rng(seed)
    parts = {member: value + rng.normal(0, 0.0005, len(IDS)) for member, value in worth.items()}
    asked = []

    def score(members):
        asked.append(members)
        return dict(zip(IDS, (0.9 + sum(parts[member] for member in members)).tolist(), strict=True))

    return score, asked


def test_what_each_member_buys():
    score, asked = made({"a": 0.01, "b": 0.0, "c": -0.002})
    found = leave_one_out("abc", score, GROUPS, seed=3, level=0.9)
    assert list(found) == ["a", "b", "c"]
    assert asked == [("a", "b", "c"), ("b", "c"), ("a", "c"), ("a", "b")]
    assert found["a"] == gain(score(("a", "b", "c")), score(("b", "c")), GROUPS, seed=3, level=0.9)
    assert found["a"].low > 0.009
    assert not found["b"].excludes(0)
    assert found["c"].high < 0
    with pytest.raises(UsageError, match="takes two members, got 1"):
        leave_one_out("a", score, GROUPS)


def test_of_two_copies_only_one_can_go():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 0.0002, len(IDS))

    def score(members):
        worth = 0.01 * ("b" in members) + 0.02 * bool({"a", "copy"} & set(members)) + 0.00005 * ("c" in members)
        return dict(zip(IDS, (0.9 + worth + noise * len(members)).tolist(), strict=True))

    members = ("a", "b", "copy", "c")
    buys = leave_one_out(members, score, GROUPS)
    assert not buys["a"].excludes(0)
    assert not buys["copy"].excludes(0)
    found = dispensable(members, score, GROUPS, margin=2e-4)
    assert len(found) == 2
    assert "c" in found
    assert len(found.keys() & {"a", "copy"}) == 1
    rest = tuple(member for member in members if member not in found)
    assert list(found.values())[-1] == gain(score(members), score(rest), GROUPS)
    assert dispensable(members, score, GROUPS, margin=1e-6) == {}
    few = {image_id: "01"[number % 2] for number, image_id in enumerate(IDS)}
    assert dispensable(members, score, few, margin=1.0) == {}
    with pytest.raises(UsageError, match=r"a margin of -0\.1 is no loss"):
        dispensable(members, score, GROUPS, margin=-0.1)


def test_the_last_member_stays():
    score, _ = made({"a": 0.0, "b": 0.0})
    assert len(dispensable("ab", score, GROUPS, margin=1.0)) == 1
    assert dispensable("a", score, GROUPS, margin=1.0) == {}


def test_weights_of_some_members():
    choice = Choice({"a": 3, "b": 2, "c": 0}, "128/255")
    assert restricted(choice, "bc") == Choice({"a": 0, "b": 2, "c": 0}, "128/255")
    assert restricted(choice, "abc") == choice
    with pytest.raises(UsageError, match="'c' have no weight"):
        restricted(choice, "c")


def brute_front(found, cost):
    def beats(one, other):
        mine, theirs = getattr(one, cost), getattr(other, cost)
        return one.score >= other.score and mine <= theirs and (one.score > other.score or mine < theirs)

    return {(one.score, getattr(one, cost)) for one in found if not any(beats(other, one) for other in found)}


@pytest.mark.parametrize("seed", range(5))
def test_all_ensembles_of_few_members(seed):
    rng = np.random.default_rng(seed)
    costs = {member: MemberCost(float(rng.integers(1, 5)) / 4, int(rng.integers(1, 9))) for member in "abcde"}
    score, asked = made({member: float(rng.normal(0, 0.01)) for member in "abcde"}, seed)
    found = ensembles(costs, score)
    sets = [some for count in range(1, 6) for some in combinations("abcde", count)]
    assert [one.members for one in found] == asked == sets
    for one in found:
        assert one.score == pytest.approx(fmean(score(one.members).values()), abs=1e-15)
        assert one.seconds == pytest.approx(sum(costs[member].seconds for member in one.members))
        assert (one.bytes, one.models) == (sum(costs[member].bytes for member in one.members), len(one.members))
    for cost in ("seconds", "bytes", "models"):
        best = front(found, cost)
        assert {(one.score, getattr(one, cost)) for one in best} == brute_front(found, cost)
        assert [getattr(one, cost) for one in best] == sorted({getattr(one, cost) for one in best})
        limit = getattr(best[len(best) // 2], cost)
        assert pick(found, **{f"max_{cost}": limit}) == best[len(best) // 2]
    both = pick(found, max_models=2, max_seconds=1.0, max_bytes=10)
    fitting = [one for one in found if one.models <= 2 and one.seconds <= 1 and one.bytes <= 10]
    assert both.score == max(one.score for one in fitting)
    assert pick(found) == max(found, key=lambda one: one.score)


def test_of_many_members_two_ways_down_are_scored():
    worth = {f"m{number:02d}": (number - 3.5) / 1000 for number in range(12)}
    score, asked = made(worth)
    # the best members are the dearest by far
    costs = {member: MemberCost(1.0 if number < 8 else 50.0, 1) for number, member in enumerate(worth)}
    found = ensembles(costs, score)
    assert len(asked) == len(set(asked)) == len(found) <= 12 + 12 * 13
    best = {one.models: one.score for one in front(found, "models")}
    # worths add up, so that leaving out the worst is best at every step, until the eight of worth are left
    assert list(best) == list(range(1, 9))
    for count, value in best.items():
        assert value == pytest.approx(0.9 + sum(sorted(worth.values())[-count:]), abs=5e-4)
    # the first way drops these before the dear ones, the second after them
    assert pick(found, max_seconds=8).members == ("m04", "m05", "m06", "m07")


def test_equals_on_the_front():
    same = [Ensemble(("b", "c"), 0.9, 1.0, 1), Ensemble(("b",), 0.9, 1.0, 1), Ensemble(("a",), 0.9, 1.0, 1)]
    assert front(same) == [same[2]]
    assert pick(same) == same[2]
    assert pick([Ensemble(("a",), 0.9, 2.0, 1), same[0]]) == same[0]


def test_what_cannot_be_meant():
    score, _ = made({"a": 0.1})
    with pytest.raises(UsageError, match="there are no members"):
        ensembles({}, score)
    for seconds, size in ((-1.0, 1), (float("nan"), 1), (1.0, -1)):
        with pytest.raises(UsageError, match="give numbers from 0"):
            ensembles({"a": MemberCost(seconds, size)}, score)
    found = ensembles({"a": MemberCost(2.5, 10)}, score)
    with pytest.raises(UsageError, match="'euros' is no cost: take one of seconds, bytes, models"):
        front(found, "euros")
    with pytest.raises(
        UsageError,
        match=r"none of 1 ensembles keeps within at most 0 models, at most 2 seconds: the least are 2\.5 seconds, "
        r"10 bytes, 1 models; allow more",
    ):
        pick(found, max_models=0, max_seconds=2)
