"""The search, against searches in plain numpy that try everything on whole maps."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from carvana_ens.core.rle import mask_bits
from carvana_ens.ensemble import search as searching_module
from carvana_ens.ensemble.disputed import keep_disputed
from carvana_ens.ensemble.objectives import OBJECTIVES
from carvana_ens.ensemble.search import PATIENCE, best_place, search
from carvana_ens.errors import UsageError

IDS = ("a_1", "a_2", "b_1", "b_2", "b_3")
LOW, HIGH, HALF = Fraction(1, 255), Fraction(1), Fraction(1, 2)


@pytest.fixture
def truth(oracle):
    """(20, 31) masks; one of them empty."""
    masks = {image_id: oracle.ellipse(image_id, (20, 31)) for image_id in IDS}
    masks["b_3"] = np.zeros((20, 31), bool)
    return masks


@pytest.fixture
def members(oracle, truth):
    """Codes of three members: two that complete each other, and a poor one."""
    settings = {"left": (1.5, -2, 70), "right": (2.0, 3, 90), "poor": (3.0, 6, 120)}
    return {
        name: {i: oracle.blurred(truth[i], *numbers, seed=IDS.index(i) + 10 * place) for i in IDS}
        for place, (name, numbers) in enumerate(settings.items())
    }


@pytest.fixture
def pixels(store):
    """Disputed pixels of members' maps in stores of their own; all thresholds unless told."""

    def make(members, truth, low=LOW, high=HIGH):
        stores = [store(f"{place}-{len(truth)}-{low.denominator}", maps) for place, maps in enumerate(members)]
        return keep_disputed(stores, list(truth), lambda i, _: mask_bits(truth[i]), low, high, threads=1)

    return make


def naive_curve(members, weights, truth):
    """Mean Dice at thresholds k / 255, k = 1..255, one at a time."""
    return np.array([naive_dice(members, weights, truth, Fraction(k, 255)) for k in range(1, 256)])


def naive_dice(members, weights, truth, threshold):
    cut, total = math.ceil(threshold * 255 * sum(weights)), 0
    for image_id, mask in truth.items():
        found = sum(w * m[image_id].astype(np.int64) for w, m in zip(weights, members, strict=True)) >= cut
        areas = int(found.sum()) + int(mask.sum())
        total += 1.0 if areas == 0 else 2 * int((found & mask).sum()) / areas
    return total / len(truth)


def naive_greedy(members, truth, rounds, score):
    """(weights, scores by round) by trying every member in every round."""
    counts, best, path = [0] * len(members), None, []
    for number in range(rounds):
        options = []
        for index in range(len(members)):
            weights = [c + (place == index) for place, c in enumerate(counts)]
            options.append(round(score(members, weights, truth), 9))
        equals = [index for index, found in enumerate(options) if found == max(options)]
        chosen = next((index for index in equals if counts[index]), equals[0])
        counts[chosen] += 1
        path.append(options[chosen])
        if best is None or options[chosen] > best[1]:
            best = (tuple(counts), options[chosen], number)
        if number - best[2] >= PATIENCE:
            break
    return best[0], path


def at_its_best(members, weights, truth):
    return naive_curve(members, weights, truth).max()


def at_the_half(members, weights, truth):
    return naive_dice(members, weights, truth, HALF)


def test_the_greedy_path_at_each_best_threshold(pixels, members, truth):
    for some in (["left", "right"], ["left", "right", "poor"]):
        maps = [members[name] for name in some]
        found = search(pixels(maps, truth), rounds=5)
        weights, path = naive_greedy(maps, truth, 5, at_its_best)
        assert found.path == pytest.approx(path, abs=1e-9)
        assert found.best.score >= max(path) - 1e-9
        assert found.best.score == naive_dice(maps, found.best.weights, truth, found.best.threshold)
        assert all(weights[:2])  # the data makes both of use


def test_the_greedy_path_at_one_threshold(pixels, members, truth):
    maps = list(members.values())
    found = search(pixels(maps, truth, HALF, HALF), rounds=9)
    _, path = naive_greedy(maps, truth, 9, at_the_half)
    assert found.path == pytest.approx(path, abs=1e-9)
    assert {setting.threshold for setting in found.settings.values()} == {HALF}
    assert found.best.score == naive_dice(maps, found.best.weights, truth, HALF)


@pytest.mark.parametrize("seed", [3, 9, 10, 31, 36, 38, 44, 45])  # where another rule for ties ends elsewhere
def test_coarse_maps_with_many_equals_take_the_same_path(pixels, seed):
    """Few pixels and levels: blends tie often, so that the rules for ties decide the path."""
    rng = np.random.default_rng(seed)
    truth = {image_id: rng.random((1, 16)) < 0.5 for image_id in "ab"}
    levels = np.array([0, 60, 100, 140, 255], np.uint8)
    members = [{i: levels[np.clip(rng.integers(-1, 4, (1, 16)) + 2 * truth[i], 0, 4)] for i in "ab"} for _ in range(4)]
    assert search(pixels(members, truth), rounds=6).path == pytest.approx(
        naive_greedy(members, truth, 6, at_its_best)[1], abs=1e-9
    )
    assert search(pixels(members, truth, HALF, HALF), rounds=6).path == pytest.approx(
        naive_greedy(members, truth, 6, at_the_half)[1], abs=1e-9
    )


def test_settings_are_what_their_names_say(pixels, members, truth):
    maps = list(members.values())
    found = search(pixels(maps, truth), rounds=5)
    singles = [naive_curve(maps, w, truth).max() for w in np.eye(3, dtype=int).tolist()]
    assert [s.score for s in found.singles] == pytest.approx(singles, abs=1e-12)
    assert found.settings["best single"] is found.singles[int(np.argmax(singles))]
    assert found.settings["equal"].weights == (1, 1, 1)
    assert found.settings["equal"].score == pytest.approx(naive_curve(maps, (1, 1, 1), truth).max(), abs=1e-12)
    for setting in found.settings.values():
        assert setting.score == naive_dice(maps, setting.weights, truth, setting.threshold)
        assert math.gcd(*setting.weights) == 1
    half = naive_greedy(maps, truth, 5, at_the_half)[0]
    assert found.settings["separate"].score >= naive_dice(maps, half, truth, Fraction(128, 255)) - 1e-9
    assert found.best is found.settings[found.how]
    assert found.best.score == max(setting.score for setting in found.settings.values())
    assert found.in_time


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("seed", range(4))
def test_two_members_reach_the_best_of_all_small_weights(pixels, name, seed):
    """With one ratio of weights, a line search at the right threshold tries all of them."""
    rng = np.random.default_rng(seed)
    truth = {i: rng.random((8, 8)) < 0.5 for i in ("a_1", "a_2", "b_1")}
    maps = [
        {i: (128 + np.where(t, 30, -30) + rng.integers(-70, 71, t.shape)).astype(np.uint8) for i, t in truth.items()}
        for _ in range(2)
    ]
    kept = pixels(maps, truth, HALF, HALF)
    everything = [
        kept.score(OBJECTIVES[name], weights, HALF) for weights in product(range(17), repeat=2) if any(weights)
    ]
    found = search(kept, OBJECTIVES[name])
    assert found.best.score >= max(everything) - 1e-9
    assert found.best.score == kept.score(OBJECTIVES[name], found.best.weights, HALF)


def planted(seed=0, members=5):
    """Members whose errors cancel in the proportion 5 : 3 : 2 exactly, beside others of noise; (maps, truth)."""
    rng = np.random.default_rng(seed)
    truth = {f"{car}_{view}": rng.random((24, 40)) < 0.4 for car in "abc" for view in "12"}
    maps = [{} for _ in range(members)]
    for image_id, mask in truth.items():
        centre = np.where(mask, 150, 105)
        first, second = rng.integers(-30, 31, (2, *mask.shape))
        errors = [3 * first, -5 * first + 2 * second, -3 * second]
        for maps_of, error in zip(maps, errors, strict=False):
            maps_of[image_id] = (centre + error).clip(0, 255)
        for maps_of in maps[3:]:
            maps_of[image_id] = (centre + rng.integers(-90, 91, mask.shape)).clip(0, 255)
    return [{i: codes.astype(np.uint8) for i, codes in maps_of.items()} for maps_of in maps], truth


@pytest.mark.parametrize("low", [HALF, Fraction(1, 4)])
def test_members_with_planted_complementary_errors(pixels, low):
    maps, truth = planted()
    best = naive_dice(maps, (5, 3, 2, 0, 0), truth, HALF)
    found = search(pixels(maps, truth, low, 1 - low))
    assert max(s.score for s in found.singles) < 0.97 < best
    assert found.best.score >= best - 1e-5
    assert found.best.score == naive_dice(maps, found.best.weights, truth, found.best.threshold)
    assert found.best.score >= found.settings["equal"].score + 0.005


def test_a_copy_of_a_member_joins_for_nothing(pixels, members, truth):
    found = search(pixels([members["left"], members["left"]], truth))
    assert found.best.weights == (1, 0)
    assert found.how == "best single"
    assert len(found.path) == 1 + PATIENCE  # nothing was gained after the first round


def test_one_member(pixels, members, truth):
    found = search(pixels([members["left"]], truth))
    assert found.best.weights == (1,)
    assert found.best.score == pytest.approx(naive_curve([members["left"]], (1,), truth).max(), abs=1e-12)


def test_the_seed_decides_and_time_may_be_up(pixels):
    maps, truth = planted(3)
    kept = pixels(maps, truth, Fraction(1, 4), Fraction(3, 4))
    assert search(kept, seed=4) == search(kept, seed=4)
    hasty = search(kept, seconds=1e-9)
    assert not hasty.in_time
    assert len(hasty.path) == 1
    assert hasty.best.score >= max(s.score for s in (*hasty.singles, hasty.settings["equal"]))


def test_progress_is_told(pixels, members, truth):
    told = []

    def track(items, total, what):
        told.append((what, total))
        return items

    search(pixels(list(members.values()), truth), rounds=3, restarts=1, track=track)
    assert told == [
        ("single members", 3),
        ("greedy, weights", 3),
        ("greedy, weights and threshold", 3),
        ("random starts", 1),
    ]


@pytest.mark.parametrize(
    ("curve", "level"),
    [
        ([0.1, 0.9, 0.9, 0.9, 0.2], 3),  # 2 / 5 and 3 / 5 are as near to the half: the upper
        ([0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1], 5),
        ([0.9, 0.1, 0.9, 0.1], 3),
        ([0.1, 0.1, 0.9, 0.9], 3),
        ([0.5] * 255, 128),
        ([0.2, 0.2 + 1e-12, 0.1, 0.1], 2),  # float noise is no gain
        ([0.0, 0.0, 0.0, 1.0], 4),
    ],
)
def test_level_of_the_greatest_score_nearest_to_the_half(curve, level):
    thresholds = [Fraction(k, len(curve)) for k in range(1, len(curve) + 1)]
    assert best_place(np.array(curve), thresholds) == level - 1


@pytest.mark.parametrize("options", [{"rounds": 0}, {"rounds": 2**16}, {"restarts": -1}, {"seconds": 0}])
def test_what_cannot_be_searched(pixels, members, truth, options):
    with pytest.raises(UsageError, match=r"rounds .*restarts .*seconds"):
        search(pixels([members["left"]], truth), **options)


@pytest.mark.parametrize("low", [HALF, Fraction(1, 4)])
def test_a_search_that_begins_on_some_of_the_images_ends_on_all(pixels, monkeypatch, low):
    maps, truth = planted()
    kept = pixels(maps, truth, low, 1 - low)
    assert kept.codes == kept.pixels.codes.size
    assert kept.only(list(truth)[::3]).codes < kept.codes / 2
    seen, only = [], type(kept).only
    monkeypatch.setattr(type(kept), "only", lambda self, ids: seen.append(ids) or only(self, ids))
    monkeypatch.setattr(searching_module, "COARSE", kept.codes // 2)
    found = search(kept)
    assert seen[0] in (tuple(truth)[::2], tuple(truth)[::3])
    for setting in found.settings.values():
        assert setting.score == naive_dice(maps, setting.weights, truth, setting.threshold)
    assert found.best.score == max(setting.score for setting in (*found.settings.values(), *found.singles))
    assert found.best.score >= naive_dice(maps, (5, 3, 2, 0, 0), truth, HALF) - 1e-5
    assert found.in_time
    assert search(kept) == found
    assert not search(kept, seconds=1e-9).in_time
