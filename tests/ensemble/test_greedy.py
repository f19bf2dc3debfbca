"""Greedy selection and exact threshold curves, against a search in plain numpy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from carvana_ens.ensemble.greedy import (
    PATIENCE,
    best_level,
    best_score,
    common_ids,
    greedy_selection,
    mean_curves,
)
from carvana_ens.errors import CarvanaEnsError, DataError, StoreError
from carvana_ens.types import Size

IDS = ("a_1", "a_2", "b_1", "b_2", "b_3")


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


def naive_curve(members, weights, truth, scale=255):
    """Mean Dice at thresholds k / scale, k = 1..scale, one at a time."""
    total = sum(weights)
    curve = np.zeros(scale)
    for image_id, mask in truth.items():
        blend = sum(w * m[image_id].astype(np.int64) for w, m in zip(weights, members, strict=True))
        for k in range(1, scale + 1):
            found = blend >= k * total
            areas = int(found.sum()) + int(mask.sum())
            curve[k - 1] += 1.0 if areas == 0 else 2 * int((found & mask).sum()) / areas
    return curve / len(truth)


def naive_greedy(members, truth, rounds):
    """(weights, scores by round) by trying every member in every round, each at its best threshold."""
    counts, best, path = [0] * len(members), None, []
    for number in range(rounds):
        options = []
        for index in range(len(members)):
            weights = [c + (place == index) for place, c in enumerate(counts)]
            options.append(round(naive_curve(members, weights, truth).max(), 9))
        equals = [index for index, score in enumerate(options) if score == max(options)]
        chosen = next((index for index in equals if counts[index]), equals[0])
        counts[chosen] += 1
        path.append(options[chosen])
        if best is None or options[chosen] > best[1]:
            best = (tuple(counts), options[chosen], number)
        if number - best[2] >= PATIENCE:
            break
    return best[0], path


@pytest.mark.parametrize("weights", [w for w in product(range(4), repeat=2) if any(w)])
def test_curves_of_all_small_weights_equal_numpy(store, members, truth, weights):
    pair = [members["left"], members["right"]]
    stores = [store(name, members[name]) for name in ("left", "right")]
    (curve,) = mean_curves(stores, IDS, lambda i, _: truth[i], [weights])
    assert np.allclose(curve, naive_curve(pair, weights, truth), rtol=0, atol=1e-12)


def test_two_members_equal_a_search_in_plain_numpy(store, members, truth):
    pair = [members["left"], members["right"]]
    found = greedy_selection([store("left", pair[0]), store("right", pair[1])], IDS, lambda i, _: truth[i], rounds=8)
    weights, path = naive_greedy(pair, truth, 8)
    assert found.weights == weights
    assert all(weights)  # the data makes both of use
    assert found.path == pytest.approx(path, abs=1e-9)
    assert best_score(found.curve) == pytest.approx(naive_curve(pair, weights, truth).max(), abs=1e-12)
    everything = [naive_curve(pair, w, truth).max() for w in product(range(5), repeat=2) if any(w)]
    singles = [naive_curve(pair, w, truth).max() for w in ((1, 0), (0, 1))]
    assert max(singles) < best_score(found.curve) <= max(everything) + 1e-12


def test_three_members_equal_a_search_in_plain_numpy(store, members, truth):
    found = greedy_selection([store(n, m) for n, m in members.items()], IDS, lambda i, _: truth[i], rounds=5)
    weights, path = naive_greedy(list(members.values()), truth, 5)
    assert found.weights == weights
    assert found.path == pytest.approx(path, abs=1e-9)


def test_of_equals_the_member_that_is_in_already(store, members, truth):
    copies = [store("first", members["left"]), store("copy", members["left"])]
    found = greedy_selection(copies, IDS, lambda i, _: truth[i], rounds=10)
    assert found.weights == (1, 0)
    assert len(found.path) == 1 + PATIENCE  # nothing was gained after the first round
    worse_first = [store("worse", members["poor"]), copies[0], copies[1]]
    assert greedy_selection(worse_first, IDS, lambda i, _: truth[i], rounds=1).weights == (0, 1, 0)


class Memory:
    """The maps of a member as a store gives them, from memory."""

    def __init__(self, maps):
        self.maps, self.ids = maps, tuple(maps)
        self.sizes = tuple(Size(*codes.shape) for codes in maps.values())
        self.index = {image_id: number for number, image_id in enumerate(maps)}

    def read(self, image_id):
        return self.maps[image_id]


@pytest.mark.parametrize("seed", [3, 9, 10, 31, 36, 38, 44, 45])  # where another rule for ties ends elsewhere
def test_coarse_maps_with_many_equals_take_the_same_path(seed):
    """Few pixels and levels: blends tie often, so that the rules for ties decide the path."""
    rng = np.random.default_rng(seed)
    truth = {image_id: rng.random((1, 16)) < 0.5 for image_id in "ab"}
    levels = np.array([0, 60, 100, 140, 255], np.uint8)
    members = [{i: levels[np.clip(rng.integers(-1, 4, (1, 16)) + 2 * truth[i], 0, 4)] for i in "ab"} for _ in range(4)]
    found = greedy_selection([Memory(maps) for maps in members], "ab", lambda i, _: truth[i], rounds=6)
    weights, path = naive_greedy(members, truth, 6)
    assert found.weights == weights
    assert found.path == pytest.approx(path, abs=1e-9)


def test_the_best_prefix_is_kept(store, members, truth):
    found = greedy_selection(
        [store("left", members["left"]), store("right", members["right"])], IDS, lambda i, _: truth[i], rounds=12
    )
    assert round(best_score(found.curve), 9) == max(found.path)
    assert sum(found.weights) == found.path.index(max(found.path)) + 1


def test_uint16_maps_have_their_own_thresholds(store, truth, members):
    wide = {i: (codes.astype(np.uint16) * 257) for i, codes in members["left"].items()}
    (curve,) = mean_curves(
        [store("wide", wide), store("right", members["right"])], IDS, lambda i, _: truth[i], [(1, 0)]
    )
    assert len(curve) == 65535
    (narrow,) = mean_curves([store("left", members["left"])], IDS, lambda i, _: truth[i], [(1,)])
    assert np.allclose(curve[256::257], narrow)


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
    assert best_level(np.array(curve)) == level
    assert best_score(np.array(curve)) == pytest.approx(max(curve), abs=1e-9)


def test_common_ids_in_the_order_of_the_first(store, members):
    maps = members["left"]
    some = {i: maps[i] for i in ("b_2", "b_1", "a_1")}
    assert common_ids([store("all", maps), store("some", some)]) == ["a_1", "b_1", "b_2"]
    assert common_ids([store("all2", maps), store("none", {"z": maps["a_1"]})]) == []


def test_an_image_of_two_sizes_is_named(store, members):
    other = {i: codes[:, :-1] if i == "b_1" else codes for i, codes in members["left"].items()}
    with pytest.raises(StoreError, match=r"other\.zarr has image b_1 as 20x30, .*plain\.zarr as 20x31"):
        common_ids([store("plain", members["left"]), store("other", other)])


def test_nothing_to_score_on(store, members, truth):
    stores = [store("left", members["left"])]
    with pytest.raises(DataError, match="no image is out-of-fold"):
        greedy_selection(stores, [], lambda i, _: truth[i])
    with pytest.raises(CarvanaEnsError, match="at least one round, got 0"):
        greedy_selection(stores, IDS, lambda i, _: truth[i], rounds=0)
