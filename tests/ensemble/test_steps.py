"""Steps as text, and blends whose masks go through them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest

from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.steps import PostProcessed, apply_step, make_step, parse_steps, steps_text, unblended
from carvana_ens.errors import PluginError, StoreError, UsageError
from carvana_ens.model import option, options_json
from carvana_ens.postprocess import Step
from carvana_ens.registry import load_step

SIZES = {"one": (20, 31), "row": (1, 9), "column": (13, 1), "dot": (1, 1), "two": (33, 65)}


@dataclass(frozen=True)
class Shift(Step):
    """Rolls the mask; the order of steps matters."""

    name = "shift"
    tried: ClassVar = {"rows": (1, 2), "wrap": (True, False)}
    rows: int = option(1, "how far")
    wrap: bool = option(True, "or lose them")
    by: float = option(1.0, "factor")
    way: Literal["down", "up"] = option("down", "where to")
    note: str = option("x", "a text")

    def apply(self, mask, image):
        found = np.roll(mask, self.rows, 0)
        if not self.wrap:
            found[: self.rows] = False
        return found


@dataclass(frozen=True)
class Flip(Step):
    """Turns every pixel."""

    name = "flip"

    def apply(self, mask, image):
        return ~mask


@dataclass(frozen=True)
class Where(Step):
    """Where the map of a member has a code."""

    name = "where"
    member: str = option("a", "which")
    least: int = option(128, "which code")

    def reads(self):
        return (self.member,)

    def apply(self, mask, image):
        return image.codes(self.member) >= self.least


@dataclass(frozen=True)
class Bad(Step):
    """Does what a step must not do."""

    name = "bad"
    how: str = option("none", "what")

    def apply(self, mask, image):
        if self.how == "writes":
            mask[0, 0] = True
        if self.how == "raises":
            raise KeyError("lost\nhere")
        if self.how == "ours":
            raise UsageError("told by the step")
        return {"dtype": mask.astype(np.uint8), "size": mask[1:], "same": mask}.get(self.how)


def maps(seed, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return {n: rng.integers(0, np.iinfo(dtype).max, s, dtype, endpoint=True) for n, s in SIZES.items()}


@pytest.fixture
def stores(store):
    return {name: store(name, maps(seed)) for seed, name in enumerate("abc")}


def test_a_text_and_back():
    for text in (
        "",
        "largest",
        "largest:connectivity=4",
        "largest,fill-holes:area=400,roof-repair:member=albu:low=20:outside=over-127",
        "closing:radius=1,closing:radius=2,closing:radius=1",
    ):
        steps = parse_steps(text)
        assert steps_text(steps) == text
        assert [step.name for step in steps] == [part.partition(":")[0] for part in text.split(",") if part]
    steps = parse_steps("largest,fill-holes:area=400,roof-repair:grow=7")
    written = steps_text(steps, whole=True)
    assert written.startswith("largest:connectivity=8,fill-holes:area=400,roof-repair:member=:low=30:")
    assert written.endswith(":grow=7:inner=55:outside=blend")
    assert parse_steps(written) == steps
    holes, repair = parse_steps(" fill-holes : area=7 , carvana-ens-postprocess:roof-repair:member = albu ")
    assert (holes.area, repair.member, repair.low) == (7, "albu", 30)
    assert parse_steps("fill-holes:area=0") == (load_step("fill-holes")[0](),)
    assert parse_steps("roof-repair:member=") == (load_step("roof-repair")[0](),)
    assert parse_steps("  ") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("largest,,closing", "a step '' without a name"),
        ("area=4", "a step 'area=4' without a name"),
        ("largest:", "a step 'largest:' without a name or with an empty option"),
        ("fill-holes:400", "step fill-holes: option '400' is not name=value"),
        ("fill-holes:area=4:400", "step fill-holes: option '400' is not name=value"),
        ("fill-holes:aera=4", r"step fill-holes: it has no option 'aera': did you mean 'area'\?"),
        ("largest:zzz=4", "step largest: it has no option 'zzz': it has: connectivity"),
        ("largest:connectivity=5", "step largest: option connectivity takes one of 4, 8, got '5'"),
        ("fill-holes:area=many", "step fill-holes: option area takes a whole number, got 'many'"),
        ("fill-holes:area=-1", "step fill-holes: option area is -1: it must be at least 0"),
        ("fill-holes:area=1:area=2", "step fill-holes is given option 'area' twice"),
    ],
)
def test_texts_that_cannot_be_meant(text, told):
    with pytest.raises(UsageError, match=told):
        parse_steps(text)


def test_unknown_steps():
    with pytest.raises(PluginError, match=r"step 'fill-hole' is unknown: did you mean 'fill-holes'\?"):
        parse_steps("largest,fill-hole:area=4")
    with pytest.raises(PluginError, match=r"step 'other:largest' is unknown"):
        parse_steps("other:largest")


def test_options_as_json_and_as_text():
    step = Shift(2, False, 0.5, "up", "no; way=this 1")
    assert make_step(Shift, options_json(step)) == step
    assert steps_text([step, Shift()]) == "shift:rows=2:wrap=false:by=0.5:way=up:note=no; way=this 1,shift"
    texts = {"rows": "2", "wrap": "false", "by": "0.5", "way": "up", "note": "no; way=this 1"}
    assert make_step(Shift, texts) == step
    for note in ("a,b", "a:b", " a", "a "):
        with pytest.raises(UsageError, match=r"step shift: option note is .*cannot hold"):
            steps_text([Shift(note=note)])


def test_what_is_tried_unless_it_is_given():
    tried = [(step.rows, step.wrap, step.by) for step in Shift(by=3.0).candidates()]
    assert tried == [(1, True, 3.0), (1, False, 3.0), (2, True, 3.0), (2, False, 3.0)]
    assert [step.wrap for step in Shift(5).candidates()] == [True, False]
    assert Shift(5, False).candidates() == (Shift(5, False),)
    assert Flip().candidates() == (Flip(),)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_masks_go_through_the_steps_in_their_order(stores, oracle, threads):
    blend = Blend(stores, "a=2,b=1,c=1", "0.4")
    steps = (Shift(3, False), Flip(), Shift(1))
    found = PostProcessed(blend, steps)
    expected = {}
    for image_id, plain in blend:
        moved = np.roll(plain, 3, 0)
        moved[:3] = False
        expected[image_id] = np.roll(~moved, 1, 0)
    masks = list(found.masks(threads))
    assert [image_id for image_id, _ in masks] == list(SIZES)
    for image_id, mask in masks:
        np.testing.assert_array_equal(mask, expected[image_id])
        np.testing.assert_array_equal(mask, found.mask(image_id))
        assert found.rle(image_id).decode() == oracle.naive_rle(mask)
        assert found.size(image_id) == SIZES[image_id]
        mask[:] = True  # the caller's own
    assert list(found.rles(threads)) == [(i, oracle.naive_rle(m).encode()) for i, m in expected.items()]
    bits = list(found.each(lambda image_id, bits: (image_id, bits.copy()), threads))
    for image_id, words in bits:
        flat = np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)
        pixels = expected[image_id].size
        np.testing.assert_array_equal(flat[:pixels], expected[image_id].ravel())
        assert not flat[pixels:].any()
        np.testing.assert_array_equal(words, found.bits(image_id))
    assert (len(found), found.ids, found.weights, found.threshold) == (5, blend.ids, blend.weights, blend.threshold)
    assert [image_id for image_id, _ in found] == list(SIZES)


def test_no_steps_are_the_blend(stores):
    blend = Blend(stores)
    for (image_id, mask), (_, plain) in zip(PostProcessed(blend, ""), blend, strict=True):
        np.testing.assert_array_equal(mask, plain, image_id)


def test_steps_by_name(stores):
    blend = Blend(stores)
    found = PostProcessed(blend, "largest,fill-holes")
    largest, fill = (load_step(name)[0]() for name in ("largest", "fill-holes"))
    changed = 0
    for image_id, mask in blend:
        expected = fill.apply(largest.apply(mask, None), None)
        np.testing.assert_array_equal(found.mask(image_id), expected)
        changed += not np.array_equal(mask, expected)
    assert changed


def test_members_maps_are_read_when_asked_for(store, stores, monkeypatch):
    wide = store("w", maps(9, np.uint16))
    blend = Blend({**stores, "w": wide}, "a=1,w=2")
    read = []
    monkeypatch.setattr(wide, "read", lambda image_id, read_it=wide.read: (read.append(image_id), read_it(image_id))[1])
    image = PostProcessed(blend, (), {"b": stores["b"]}).image("one")
    assert (image.id, image.size, image.members) == ("one", SIZES["one"], ("a", "b", "w"))
    assert image.weights == {"a": 1, "w": 2}
    assert read == []
    codes = image.codes("w")
    assert read == ["one"]
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.rint(maps(9, np.uint16)["one"] / 257))
    np.testing.assert_array_equal(image.codes("b"), maps(1)["one"])
    with pytest.raises(UsageError, match="image one has no map of member 'c': there are a, b, w"):
        image.codes("c")


def test_members_without_a_weight(stores, store):
    blend = Blend(stores, "a=1,b=1")
    steps = (Flip(), Where("c", 99))
    assert unblended(steps, blend.stores) == ["c"]
    found = PostProcessed(blend, steps, {"c": stores["c"]})
    np.testing.assert_array_equal(found.mask("two"), maps(2)["two"] >= 99)
    assert found.weights == {"a": 1, "b": 1}
    with pytest.raises(UsageError, match="where:member=c:least=99 reads member 'c', which is unknown: there are: a, b"):
        PostProcessed(blend, steps)
    fewer = {name: codes for name, codes in maps(2).items() if name != "dot"}
    with pytest.raises(StoreError, match="have other images"):
        PostProcessed(blend, steps, {"c": store("fewer", fewer)})
    with pytest.raises(StoreError, match="lacks 1 of 5 maps, first row"):
        PostProcessed(blend, steps, {"c": store("partial", maps(2), leave=("row",))})


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("writes", "image one: step bad failed: ValueError: assignment destination is read-only; report it"),
        ("raises", r"image one: step bad failed: KeyError: 'lost\\nhere'; report it to the author of the step"),
        ("dtype", r"image one: step bad answered with uint8 \(20, 31\), not a mask of bool \(20, 31\)"),
        ("size", r"image one: step bad answered with bool \(19, 31\), not"),
        ("none", "image one: step bad answered with NoneType, not"),
    ],
)
def test_a_step_that_breaks_the_contract(stores, how, told):
    found = PostProcessed(Blend(stores), [Bad(how)])
    with pytest.raises(PluginError, match=told):
        list(found.rles(2))


def test_errors_of_ours_pass_through(stores):
    with pytest.raises(UsageError, match=r"^told by the step$"):
        list(PostProcessed(Blend(stores), [Bad("ours")]))


def test_the_mask_given_stays(stores):
    mask = np.ones((3, 4), bool)
    assert apply_step(Bad("same"), mask, None) is mask
    assert mask.flags.writeable
    with pytest.raises(PluginError, match="read-only"):
        apply_step(Bad("writes"), mask, PostProcessed(Blend(stores), ()).image("one"))
    assert mask.all()


def test_works_no_further_ahead_than_it_has_to(store):
    many = {f"img_{number:03d}": np.full((3, 4), number, np.uint8) for number in range(90)}
    seen = []

    @dataclass(frozen=True)
    class Counting(Step):
        name = "counting"

        def apply(self, mask, image):
            seen.append(image.id)
            return mask

    before = threading.active_count()
    results = PostProcessed(Blend({"a": store("a", many)}), [Counting()]).masks(3)
    for number, (image_id, mask) in enumerate(results):
        assert image_id == f"img_{number:03d}"
        assert mask.all() == (number >= 128)
        assert len(seen) <= number + 6
        if number == 40:
            break
    results.close()
    assert threading.active_count() == before
