"""Which steps are kept: planted helpers and harmers, against sums in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from carvana_ens.core.rle import mask_bits
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.bootstrap import gain
from carvana_ens.ensemble.step_choice import HARM, choose_steps, score_steps
from carvana_ens.ensemble.steps import PostProcessed, parse_steps
from carvana_ens.errors import DataError, PluginError, UsageError
from carvana_ens.model import option
from carvana_ens.postprocess import Step
from carvana_ens.types import Size

CARS, VIEWS = 6, 3
SIZES = [(40, 60), (37, 53), (41, 64)]
IDS = [f"car{car}_{view:02d}" for car in range(CARS) for view in range(VIEWS)]
GROUPS = {image_id: image_id.partition("_")[0] for image_id in IDS}


@dataclass(frozen=True)
class Add(Step):
    """Turns on pixels of one row, from the left; of some cars only."""

    name = "add"
    tried: ClassVar = {"count": (2, 5, 9)}
    row: int = option(0, "which")
    count: int = option(2, "how many")
    cars: str = option("", "letters of the cars; empty: all")

    def apply(self, mask, image):
        if self.cars and image.id[3] not in self.cars:
            return mask
        mask = mask.copy()
        mask[self.row, : self.count] = True
        return mask


@dataclass(frozen=True)
class Where(Step):
    name = "where"
    member: str = option("b", "which")

    def reads(self):
        return (self.member,)

    def apply(self, mask, image):
        return image.codes(self.member) >= 128


def drawn():
    """Masks by id: a block, and the first 5 pixels of row 0."""
    masks = {}
    for number, image_id in enumerate(IDS):
        mask = np.zeros(SIZES[number % 3], bool)
        mask[10 : 20 + number, 8:30] = True
        mask[0, :5] = True
        masks[image_id] = mask
    return masks


TRUE = drawn()


def predicted():
    """What the member finds: all but row 0, and a speck in row 2."""
    masks = {image_id: mask.copy() for image_id, mask in TRUE.items()}
    for mask in masks.values():
        mask[0] = False
        mask[2, 3] = True
    return {image_id: mask.astype(np.uint8) * 255 for image_id, mask in masks.items()}


def truth(image_id, size):
    assert size == Size(*TRUE[image_id].shape)
    return mask_bits(TRUE[image_id])


def dice(mask, image_id):
    true = TRUE[image_id]
    return 2 * np.count_nonzero(mask & true) / (np.count_nonzero(mask) + np.count_nonzero(true))


def scores(steps, ids=IDS):
    """Dice by image, with the steps applied one after the other."""
    found = {}
    for image_id in ids:
        mask = predicted()[image_id] >= 128

        class Image:
            id = image_id

        for step in steps:
            mask = step.apply(mask, Image)
        found[image_id] = dice(mask, image_id)
    return found


def mean(by_image):
    return float(np.mean(list(by_image.values())))


@pytest.fixture
def blend(store):
    return Blend({"a": store("a", predicted())})


def choose(blend, steps, **options):
    return choose_steps(blend, steps, truth, GROUPS, threads=2, **options)


def test_the_best_candidate_is_kept_on_top_of_those_before(blend):
    useful, useless = Add(0), Add(7, 4)
    (speck,) = parse_steps("remove-islands:area=4")
    found = choose(blend, [useful, useless, speck])
    assert found.steps == (Add(0, 5), speck)
    assert [(one.step, one.refused is None) for one in found.tried] == [
        (Add(0, 2), False),
        (Add(0, 5), True),
        (Add(0, 9), False),
        (useless, False),
        (speck, True),
    ]
    assert found.plain == pytest.approx(scores(()))
    assert found.by_image == pytest.approx(scores(found.steps))
    befores = [(), (), (), (Add(0, 5),), (Add(0, 5),)]
    for one, before in zip(found.tried, befores, strict=True):
        assert one.gain.mean == pytest.approx(mean(scores((*before, one.step))) - mean(scores(before)))
        expected = gain(scores((*before, one.step)), scores(before), GROUPS)
        assert (one.gain.low, one.gain.high) == pytest.approx((expected.low, expected.high))
        assert one.gain.groups == CARS
    assert [one.changed for one in found.tried] == [18, 18, 18, 18, 18]
    assert found.tried[0].refused == "add:count=5 gains as much or more"
    assert found.tried[3].refused is not None
    assert "group car" in found.tried[3].refused
    masks = PostProcessed(blend, found.steps)
    assert {i: dice(m, i) for i, m in masks} == pytest.approx(found.by_image)


def test_a_group_that_falls_refuses_a_step(blend):
    helps, harms = Add(0, 5), Add(25, 60, "4")
    both = choose(blend, [helps, harms], harm=0)
    assert both.steps == (helps,)
    one = both.tried[1]
    before, after = (
        np.mean([v for i, v in scores(steps).items() if GROUPS[i] == "car4"]) for steps in ((helps,), (helps, harms))
    )
    assert one.group == "car4"
    assert one.fall == pytest.approx(before - after)
    assert one.refused == f"the mean Dice of group car4 falls by {one.fall:.6f}, more than 0"


@dataclass(frozen=True)
class Mixed(Step):
    """Right for all cars but one."""

    name = "mixed"

    def apply(self, mask, image):
        return Add(35, 12).apply(mask, image) if image.id.startswith("car2") else Add(0, 5).apply(mask, image)


def test_harm_is_what_a_group_may_fall_by(blend):
    plain, after = scores(()), scores([Mixed()])
    assert mean(after) > mean(plain)
    fall = np.mean([plain[i] - after[i] for i in IDS if GROUPS[i] == "car2"])
    assert fall > HARM
    refused = choose(blend, [Mixed()])
    assert refused.steps == ()
    assert refused.by_image == refused.plain
    assert "group car2 falls by" in refused.tried[0].refused
    assert choose(blend, [Mixed()], harm=fall - 1e-9).steps == ()
    assert choose(blend, [Mixed()], harm=fall + 1e-9).steps == (Mixed(),)


def test_small_harms_do_not_add_up(blend):
    """Each takes a little from car2 and gives to the others: two together would take too much."""
    first, second = Add(31, 3, "2"), Add(33, 3, "2")
    good = [Add(0, 1), Add(0, 3)]

    @dataclass(frozen=True)
    class Both(Step):
        name = "both"
        number: int = option(0, "which")

        def apply(self, mask, image):
            for step in (good[self.number], (first, second)[self.number]):
                mask = step.apply(mask, image)
            return mask

    alone = scores([Both(0)])
    plain = scores(())
    cars = [i for i in IDS if GROUPS[i] == "car2"]
    one = np.mean([plain[i] - alone[i] for i in cars])
    assert one > 0
    assert choose(blend, [Both(0)], harm=one * 1.2).steps == (Both(0),)
    found = choose(blend, [Both(0), Both(1)], harm=one * 1.2)
    two = np.mean([plain[i] - scores([Both(0), Both(1)])[i] for i in cars])
    assert two > one * 1.2
    assert found.steps == (Both(0),)
    assert found.tried[1].fall == pytest.approx(two)


def test_a_gain_must_be_more_than_the_margin(blend):
    helps = Add(0, 5)
    rise = mean(scores([helps])) - mean(scores(()))
    assert rise > 0
    assert choose(blend, [helps], margin=rise * 0.99).steps == (helps,)
    found = choose(blend, [helps], margin=rise * 1.01)
    assert found.steps == ()
    assert found.tried[0].refused == f"it gains {rise:.6f}, not more than {rise * 1.01:g}"


def test_what_changes_nothing_is_not_kept(blend):
    found = choose(blend, parse_steps("fill-holes,closing:radius=1"))
    assert found.steps == ()
    assert [one.gain.mean for one in found.tried] == [0.0] * 5
    assert found.tried[0].refused == "it gains 0.000000, not more than 0"


def test_on_some_of_the_images(blend):
    ids = [i for i in IDS if GROUPS[i] in ("car0", "car1")]
    helps = Add(0, 5, "01")
    found = choose(blend, [helps], ids=ids)
    assert found.by_image == pytest.approx(scores([helps], ids))
    assert [one.changed for one in found.tried] == [len(ids)]
    assert choose(blend, [helps]).tried[0].changed == len(ids)
    assert list(found.by_image) == ids
    assert found.tried[0].gain.reason is not None  # two groups
    rest = [i for i in IDS if i not in ids]
    assert score_steps(blend, found.steps, truth, ids=rest) == pytest.approx(scores([helps], rest))
    assert score_steps(blend, (), truth) == pytest.approx(scores(()))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(blend, threads):
    steps = [Add(0), *parse_steps("remove-islands,largest")]
    expected = choose(blend, steps)
    assert choose_steps(blend, steps, truth, GROUPS, threads=threads) == expected


def test_masks_are_held_only_while_they_are_scored(blend):
    asked, taken, ahead = [], [], []

    def slow_truth(image_id, size):
        asked.append(image_id)
        ahead.append(len(asked) - len(taken))
        return truth(image_id, size)

    def track(rows, total, what):
        assert (total, what) in ((18, "blend"), (18, "add"))
        for row in rows:
            taken.append(row)
            yield row

    choose_steps(blend, [Add(0)], slow_truth, GROUPS, threads=2, track=track)
    assert len(taken) == len(asked) == 2 * len(IDS)
    assert max(ahead) <= 2 * 2 + 1


def test_members_without_a_weight(store):
    stores = {"a": store("a", predicted()), "b": store("b", {i: m.astype(np.uint8) * 255 for i, m in TRUE.items()})}
    blend = Blend(stores, "a=1")
    found = choose(blend, [Where()], others={"b": stores["b"]})
    assert found.steps == (Where(),)
    assert set(found.by_image.values()) == {1.0}
    with pytest.raises(UsageError, match="reads member 'b', which is unknown"):
        choose(blend, [Add(0), Where()])


@dataclass(frozen=True)
class Nothing(Step):
    name = "nothing"

    def candidates(self):
        return ()


def test_what_cannot_be_meant(blend):
    with pytest.raises(PluginError, match="step nothing has no candidates"):
        choose(blend, [Nothing()])
    for options in ({"margin": -1e-9}, {"harm": -1}, {"harm": float("nan")}):
        with pytest.raises(UsageError, match=r"margin .* and harm .* give numbers from 0"):
            choose(blend, [Add(0)], **options)
    with pytest.raises(DataError, match="no images to choose"):
        choose(blend, [Add(0)], ids=[])
    with pytest.raises(DataError, match="3 of 18 images to choose steps on have no group: 'car0_00', 'car0_01'"):
        choose_steps(blend, [], truth, {i: g for i, g in GROUPS.items() if g != "car0"})
