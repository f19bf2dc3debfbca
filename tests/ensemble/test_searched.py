"""The real search judged honestly, on small drawn maps whose truth about members is known."""

from __future__ import annotations

import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from carvana_ens.core.rle import mask_bits
from carvana_ens.ensemble import searched
from carvana_ens.ensemble.disputed import keep_disputed
from carvana_ens.ensemble.honest import Choice, dealt_groups, honest_gain, nested
from carvana_ens.ensemble.pareto import MemberCost, ensembles, leave_one_out, pick, restricted
from carvana_ens.ensemble.searched import SearchedPixels
from carvana_ens.errors import DataError
from carvana_ens.types import Size

Memory = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["Memory"]
SIZE = Size(16, 24)
NAMES = ("a", "b", "c", "d")
HALF = Fraction(1, 2)
IDS = [f"{car}_{view}" for car in range(20) for view in (1, 2)]
GROUPS = {image_id: image_id.split("_")[0] for image_id in IDS}
SEARCH = searched.search


class World:
    """Ellipses, and members that are one map plus noise of their own."""

    def __init__(self, seed, spread):
        """spread: standard deviation of each member's noise in codes, of all pixels or (H, W)."""
        rng = np.random.default_rng(seed)
        y, x = np.indices(SIZE)
        self.truth, self.maps = {}, [{} for _ in NAMES]
        for image_id in IDS:
            shape = ((y - 8) / rng.uniform(4, 7)) ** 2 + ((x - 12) / rng.uniform(6, 10)) ** 2
            self.truth[image_id] = shape <= 1
            common = 128 + 150 * (1 - shape) + rng.normal(0, 40, SIZE)
            for maps, own in zip(self.maps, spread, strict=True):
                maps[image_id] = np.clip(common + own * rng.normal(0, 1, SIZE), 0, 255).astype(np.uint8)

    def pixels(self, low=HALF, high=HALF):
        stores = [Memory(maps) for maps in self.maps]
        return keep_disputed(stores, IDS, lambda i, _: mask_bits(self.truth[i]), low, high, threads=1)

    def judged(self, seed):
        """(the search, nested scores of the best, nested scores of equal weights)."""
        found = SearchedPixels(self.pixels(), NAMES, rounds=12, restarts=0)
        folds = dealt_groups(GROUPS, 5, seed)
        return found, *(nested(found.search(how), found.score, GROUPS, folds) for how in (None, "equal"))


@pytest.mark.slow
def test_of_clones_the_gain_over_equal_weights_covers_zero():
    covered, optimism = 0, []
    for seed in range(100):
        _, tuned, equal = World(seed, [60] * 4).judged(seed)
        covered += not honest_gain(tuned, equal, GROUPS).excludes(0)
        optimism.append(tuned.optimism)
    assert covered >= 90
    assert np.mean(optimism) > 3 * np.std(optimism) / 10


def test_members_that_complete_one_another_excludes_zero():
    left = np.where(np.arange(SIZE.width) < 12, 200.0, 2.0) * np.ones(SIZE)
    for seed in range(5):
        _, tuned, equal = World(seed, [left, left[:, ::-1], 300, 300]).judged(seed)
        assert honest_gain(tuned, equal, GROUPS).low > 0
        assert min(tuned.choice.weights[name] for name in "ab") > max(tuned.choice.weights[name] for name in "cd")


def test_scores_equal_the_whole_maps(monkeypatch):
    world = World(5, [60, 80, 100, 60])
    found = SearchedPixels(world.pixels(Fraction(2, 5), Fraction(3, 5)), NAMES, rounds=4, restarts=0)
    choice = Choice({"a": 3, "b": 1, "c": 0, "d": 2}, str(Fraction(120, 255)))
    some = IDS[7:19]
    expected = {}
    for image_id in some:
        sums = sum(int(w) * maps[image_id].astype(int) for w, maps in zip([3, 1, 0, 2], world.maps, strict=True))
        mask, truth = sums >= 120 * 6, world.truth[image_id]
        expected[image_id] = float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert found.score(choice, some) == expected

    calls = []
    monkeypatch.setattr(searched, "search", lambda *a, **o: calls.append(a) or SEARCH(*a, **o))
    for how in (None, "equal", "best single", None):
        setting = found.found(some).best if how is None else found.found(some).settings[how]
        answer = found.search(how)(some)
        assert list(answer.weights.items()) == list(zip(NAMES, setting.weights, strict=True))
        assert np.mean(list(found.score(answer, some).values())) == pytest.approx(setting.score, abs=1e-12)
    assert len(calls) == 1
    with pytest.raises(DataError, match="'z_1' is not among the 40 images"):
        found.score(choice, ["z_1"])


def test_members_that_buy_nothing_are_named_and_can_go():
    world = World(8, [70, 70, 70, 500])
    found = SearchedPixels(world.pixels(), NAMES, rounds=8, restarts=0)
    equal = Choice(dict.fromkeys(NAMES, 1), "1/2")

    def score(members):
        return found.score(restricted(equal, members), IDS)

    buys = leave_one_out(NAMES, score, GROUPS)
    assert buys["d"].high < 0
    assert all(buys[name].mean > buys["d"].mean for name in "abc")
    every = ensembles({name: MemberCost(0.5, 100) for name in NAMES}, score)
    assert pick(every).members == ("a", "b", "c")
    assert "d" not in pick(every, max_seconds=1).members
