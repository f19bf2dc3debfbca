"""What else than weights tuning takes: planted maps on which another space, cut or step is surely better, or is not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import carvana_ens
from carvana_ens.core.rle import mask_bits
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.objectives import OBJECTIVES
from carvana_ens.ensemble.out_of_fold import OutOfFold
from carvana_ens.ensemble.pareto import MemberCost
from carvana_ens.ensemble.steps import parse_steps
from carvana_ens.ensemble.tuner import Asked, tune_maps
from carvana_ens.errors import DataError, UsageError

CARS = "abcdefghij"
SIZE = (24, 32)
Y, X = np.indices(SIZE)
LOW, HIGH = Fraction(1, 4), Fraction(3, 4)


class Truth:
    """Masks from memory, as a cache of them gives them."""

    def __init__(self, masks):
        self.masks = masks

    def __call__(self, image_id, size):
        return mask_bits(self.masks[image_id])


@pytest.fixture
def tuned(store, tmp_path):
    """Tunes members given as {name: {id: codes}} on masks by id."""

    def run(members, masks, **asked):
        stores = {name: store(name, maps) for name, maps in members.items()}
        groups = {image_id: image_id[0] for image_id in masks}
        maps = OutOfFold(stores, Truth(masks), "drawn", groups, {})
        costs = {name: MemberCost(0.0, 0) for name in members}
        asked = Asked(LOW, HIGH, OBJECTIVES["mean-dice"], **asked)
        return stores, tune_maps(maps, asked, costs, tmp_path / "kept")

    return run


def codes(probabilities):
    return np.rint(255 * np.clip(probabilities, 0, 1)).astype(np.uint8)


def uncertain():
    """One calibrated member: of sure photos a faint ring is no object, of faint ones it is all there is to hope for."""
    rng = np.random.default_rng(4)
    maps, masks = {}, {}
    for car in CARS:
        for view, sure in ((1, True), (2, False)):
            inside = rng.integers(40, 60) > (Y - 12) ** 2 + (X - 16) ** 2
            ring = ~inside & ((Y - 12) ** 2 + (X - 16) ** 2 < 110)
            chance = np.where(inside, 0.97, 0.33 * ring) if sure else 0.33 * (inside | ring)
            maps[f"{car}_{view}"] = codes(chance)
            masks[f"{car}_{view}"] = rng.random(SIZE) < chance
    return {"net": maps}, masks


def test_a_cut_by_expected_dice_takes_over_where_it_is_surely_better(tuned):
    members, masks = uncertain()
    stores, outcome = tuned(members, masks, cut="best")
    assert outcome.cut == "expected-dice"
    (tried,) = outcome.tried
    assert tried.reason is None
    assert tried.gain.low > 0
    dices = []
    for image_id, mask in Blend(stores, "equal", cut="expected-dice"):
        truth = masks[image_id]
        dices.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert outcome.judged.worth.score.mean == pytest.approx(np.mean(dices), abs=1e-12)  # nothing in it is tuned
    assert outcome.final == pytest.approx(np.mean(dices), abs=1e-12)
    assert outcome.judged.worth.over_equal.low > 0


def shifted():
    """Members whose logits are the distance to the outline plus noise, ten times as large in one as in the other."""
    rng = np.random.default_rng(9)
    members, masks = {"loud": {}, "shy": {}}, {}
    for car in CARS:
        for view in range(6):
            distance = 9 - np.hypot(Y - 12, X - 16 + rng.normal())
            masks[f"{car}_{view}"] = distance > 0
            for name, scale in (("loud", 1.2), ("shy", 0.1)):
                logits = scale * (distance + rng.normal(0, 4, SIZE))
                members[name][f"{car}_{view}"] = codes(1 / (1 + np.exp(-logits)))
    return members, masks


def test_a_space_takes_over_where_it_is_surely_better(tuned):
    members, masks = shifted()
    _, outcome = tuned(members, masks, spaces=("probability", "temperature", "rank"))
    gains = {one.name: one for one in outcome.tried}
    assert gains[f"space {outcome.space.kind}"].gain.low > 0
    assert outcome.space.kind in ("temperature", "rank")
    better = [one.gain.mean for one in outcome.tried if one.reason is None]
    assert gains[f"space {outcome.space.kind}"].gain.mean == max(better)
    assert set(outcome.space.members) == set(members)


def test_of_alike_members_the_first_space_stays(tuned):
    members, masks = shifted()
    alike = {"one": members["loud"], "two": members["loud"]}
    _, outcome = tuned(alike, masks, spaces=("probability", "logit"))
    assert outcome.space.kind == "probability"
    (tried,) = outcome.tried
    assert tried.reason == "its interval does not lie above 0"


def test_steps_are_judged_on_photos_that_they_were_not_chosen_on(tuned):
    rng = np.random.default_rng(2)
    maps, masks = {}, {}
    for car in CARS:
        for view in (1, 2):
            truth = np.hypot(Y - 12, X - 16) < rng.uniform(6, 9)
            spots = rng.random(SIZE) < 0.05
            masks[f"{car}_{view}"] = truth
            maps[f"{car}_{view}"] = np.where(truth | spots, 250, 3).astype(np.uint8)
    _, outcome = tuned({"net": maps}, masks, steps=parse_steps("largest"))
    assert [step.name for step in outcome.steps] == ["largest"]
    assert outcome.tried[0].gain.low > 0
    assert outcome.final > outcome.found.best.score
    assert outcome.judged.worth.score.mean == pytest.approx(outcome.final, abs=1e-12)
    _, harmless = tuned({"net2": {i: np.where(m, 250, 3).astype(np.uint8) for i, m in masks.items()}}, masks,
                        steps=parse_steps("largest"))  # fmt: skip
    assert harmless.steps == ()
    assert harmless.tried[0].reason == "it gains 0.000000, not more than 0"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"spaces": ()}, "one at least"),
        ({"spaces": ("sound",)}, "'sound' is unknown"),
        ({"cut": "knife"}, "'knife' is unknown"),
        ({"spaces": ("probability", "logit"), "honest": False}, "decided by honest scores"),
    ],
)
def test_what_cannot_be_meant(asked, told):
    with pytest.raises(UsageError, match=told):
        Asked(LOW, HIGH, OBJECTIVES["mean-dice"], **asked)


def test_an_expected_dice_is_not_of_ranks(tuned):
    members, masks = shifted()
    with pytest.raises(UsageError, match="rank"):
        tuned(members, masks, spaces=("rank",), cut="expected-dice")
    _, outcome = tuned({"again": members["loud"]}, masks, spaces=("rank",), cut="best")
    assert outcome.cut == "threshold"


def test_from_python_without_a_project(store):
    members, masks = shifted()
    stores = {name: store(name, maps) for name, maps in members.items()}
    calls = []

    def mask(image_id):
        calls.append(image_id)
        return masks[image_id]

    found = carvana_ens.tune(stores, mask, spaces=("probability", "temperature"))
    assert sorted(calls) == sorted(masks)
    blended = dict(carvana_ens.blend(stores, found.weights, found.threshold, space=found.space, cut=found.cut))
    dices = [2 * (blended[i] & masks[i]).sum() / (blended[i].sum() + masks[i].sum()) for i in masks]
    assert found.found.best.score == pytest.approx(np.mean(dices), abs=1e-12)
    assert found.judged.worth.score.groups == 10
    with pytest.raises(DataError, match=r"a_0 is \(32, 24\), its maps are 24x32"):
        carvana_ens.tune(stores, lambda image_id: masks[image_id].T)


def test_of_one_group_nothing_says_that_another_cut_is_better(store):
    members, masks = uncertain()
    stores = {name: store(name, maps) for name, maps in members.items()}
    found = carvana_ens.tune(stores, masks.__getitem__, dict.fromkeys(masks, "one"), cut="best")
    assert found.cut == "threshold"
    assert found.reason == "there is one group only"
    taken = carvana_ens.tune(stores, masks.__getitem__, dict.fromkeys(masks, "one"), cut="expected-dice")
    assert taken.cut == "expected-dice"
    with pytest.raises(UsageError, match="logit"):
        carvana_ens.tune(stores, masks.__getitem__, dict.fromkeys(masks, "one"), spaces=("logit",), cut="expected-dice")
