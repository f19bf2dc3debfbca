"""Blends, disputed pixels and fits in blending spaces, against whole numbers in plain numpy."""

from __future__ import annotations

import functools
import json
import math
import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.core.rle import bits_mask, mask_bits
from carvana_ens.core.space_tables import logit_table, rank_table, temperature_table
from carvana_ens.core.spaces import KINDS, MemberTable, Space
from carvana_ens.ensemble.blending import Blend, blend
from carvana_ens.ensemble.disputed import LEVELS, keep_disputed
from carvana_ens.ensemble.expected_dice import expected_dice_scores
from carvana_ens.ensemble.objectives import OBJECTIVES
from carvana_ens.ensemble.search import search
from carvana_ens.ensemble.spaces import count_codes, fit_space, space_of
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.errors import DataError, StoreError, UsageError
from carvana_ens.store.packing import pack_store
from carvana_ens.store.store import open_store

TWINS = runpy.run_path(str(Path(__file__).with_name("test_disputed.py")))
Memory, naive_score, drawn = (TWINS[name] for name in ("Memory", "naive_score", "drawn"))
HALF = Fraction(1, 2)
SIZES = {"one": (20, 31), "row": (1, 9), "column": (13, 1), "dot": (1, 1)}


def rising(full_scale, rng):
    """A table with steps and flat parts."""
    steps = rng.integers(0, 2 * 65535 // full_scale + 1, full_scale + 1) * (rng.random(full_scale + 1) < 0.7)
    return np.minimum(steps.cumsum(), 65535).astype(np.uint16)


def in_space(members, tables):
    """Maps of values, as Python and numpy look them up."""
    return [
        {i: table[codes].astype(np.int64) for i, codes in maps.items()}
        for maps, table in zip(members, tables, strict=True)
    ]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(sorted(OBJECTIVES)),
    weights=st.lists(st.integers(0, 40), min_size=3, max_size=3).filter(any),
    threshold=st.fractions(Fraction(1, 50), 1, max_denominator=60),
    member=st.integers(0, 2),
    dtypes=st.lists(st.sampled_from([np.uint8, np.uint16]), min_size=3, max_size=3),
)
def test_every_score_equals_the_whole_maps(seed, name, weights, threshold, member, dtypes):
    rng = np.random.default_rng(seed)
    narrow, truths = drawn(seed)
    members = [
        {i: codes.astype(dtype) * dtype(257 if dtype == np.uint16 else 1) for i, codes in maps.items()}
        for maps, dtype in zip(narrow, dtypes, strict=True)
    ]
    tables = [rising(np.iinfo(dtype).max, rng) for dtype in dtypes]
    score = functools.partial(naive_score, name, in_space(members, tables), truths=truths, full_scale=65535)
    objective = OBJECTIVES[name]
    keep = functools.partial(
        keep_disputed,
        [Memory(maps) for maps in members],
        list(truths),
        lambda i, _: mask_bits(truths[i]),
        tables=tables,
        threads=1,
    )
    one = keep(threshold, threshold)
    assert one.thresholds == (threshold,)
    assert one.score(objective, weights, threshold) == score(weights, threshold)
    added = [[w + (k == m) for k, w in enumerate(weights)] for m in range(3)]
    assert one.scores_of_each_added(objective, weights, threshold).tolist() == [score(w, threshold) for w in added]
    moved = [[v if k == member else w for k, w in enumerate(weights)] for v in range(1, 20)]
    found = one.line(objective, weights, member, range(1, 20), threshold)
    assert found.tolist() == [score(w, threshold) for w in moved]
    around = keep(threshold / 2, threshold)
    curve = around.curve(objective, weights)
    assert len(curve) == len(around.thresholds)
    for place in {*range(0, len(curve), 17), len(curve) - 1}:
        assert curve[place] == score(weights, around.thresholds[place])


@pytest.mark.parametrize(
    ("low", "high", "step"), [("1/4", "3/4", 128), ("1/65535", "1", 256), ("1/2", "0.5001", 1), ("0.4", "0.402", 1)]
)
def test_ranges_have_thresholds_enough(low, high, step):
    members, truths = drawn(3)
    tables = [rising(255, np.random.default_rng(n)) for n in range(3)]
    stores = [Memory(maps) for maps in members]
    found = keep_disputed(
        stores, list(truths), lambda i, _: mask_bits(truths[i]), Fraction(low), Fraction(high), tables=tables
    )
    levels = [threshold * 65535 for threshold in found.thresholds]
    first, last = math.ceil(Fraction(low) * 65535), math.floor(Fraction(high) * 65535)
    assert levels == [level for level in range(first, last + 1) if level % step == 0]
    assert step == 1 or LEVELS / 2 < len(levels) <= LEVELS
    values = in_space(members, tables)
    curve = found.curve(OBJECTIVES["mean-dice"], (3, 1, 2))
    assert curve.tolist() == [naive_score("mean-dice", values, (3, 1, 2), t, truths, 65535) for t in found.thresholds]


def maps(seed, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    found = {name: rng.integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True) for name, size in SIZES.items()}
    if dtype == np.uint8:
        found["one"].ravel()[:256] = np.arange(256)
    return found


def fitted(kind, stores, truths):
    return fit_space(kind, stores, list(truths), lambda i, _: mask_bits(truths[i]), threads=2)


def some_truths(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.random(size) < 0.4 for name, size in SIZES.items()}


@pytest.mark.parametrize("layout", ["plain", "packed"])
@pytest.mark.parametrize("dtypes", [(np.uint8,) * 3, (np.uint8, np.uint16, np.uint8)], ids=["uint8", "mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_equal_whole_numbers(store, oracle, kind, dtypes, layout):
    codes = {name: maps(seed, dtype) for seed, (name, dtype) in enumerate(zip("abc", dtypes, strict=True))}
    stores = {name: store(name, codes[name]) for name in "abc"}
    if layout == "packed":
        for name in "abc":
            pack_store(stores[name].path)
        stores = {name: open_store(stores[name].path) for name in "abc"}
        assert all(found.packed is not None for found in stores.values())
    space = fitted(kind, stores, some_truths(1))
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    values = codes
    full = max(np.iinfo(dtype).max for dtype in dtypes)
    if kind == "probability":
        values = {
            n: {i: m.astype(np.int64) * (full // np.iinfo(m.dtype).max) for i, m in codes[n].items()} for n in "abc"
        }
    else:
        full = 65535
        values = {n: {i: space.members[n].values[m].astype(np.int64) for i, m in codes[n].items()} for n in "abc"}
    for threshold in ("0.5", "1", "1/65535", "0.37", "32768/65535"):
        found = Blend(stores, "a=2,c=3,b=1", threshold, space=again)
        for image_id, mask in found.masks(2):
            expected = oracle.naive_blend(
                [values[n][image_id] for n in "abc"], [Fraction(w) for w in (2, 1, 3)], Fraction(threshold), full
            )
            assert np.array_equal(mask, expected)
            assert found.rle(image_id).decode() == oracle.naive_rle(expected)


def test_a_member_of_weight_zero_needs_no_table(store):
    stores = {name: store(name, maps(seed)) for seed, name in enumerate("ab")}
    space = Space("logit", {"a": logit_table(255)})
    assert Blend(stores, "a=1,b=0", space=space).weights == {"a": 1}
    with pytest.raises(UsageError, match="no table of member 'b', only of a"):
        Blend(stores, "a=1,b=1", space=space)
    with pytest.raises(
        StoreError, match=r"b\.zarr has codes of 0\.\.255, its table in the blending space 65536 values"
    ):
        Blend(stores, "b=1", space=Space("logit", {"b": logit_table(65535)}))
    both, one = list(stores.values()), [logit_table(255).values]
    for refused in (
        lambda: MapStack(both, one),
        lambda: keep_disputed(both, ["one"], lambda i, _: None, HALF, HALF, tables=one),
    ):
        with pytest.raises(UsageError, match="2 stores have 1 tables"):
            refused()


def naive_counts(members, truths):
    """Histograms of each member, (object, others), pixel by pixel."""
    return [
        [
            sum(np.bincount(maps[i][truth == on].ravel(), minlength=256) for i, truth in truths.items())
            for on in (True, False)
        ]
        for maps in members
    ]


def test_fits_are_those_of_all_pixels(store):
    members, truths = drawn(4, images=6)
    stores = {name: store(name, maps) for name, maps in zip("xyz", members, strict=True)}
    ranks, temperatures = fitted("rank", stores, truths), fitted("temperature", stores, truths)
    for name, (objects, others) in zip("xyz", naive_counts(members, truths), strict=True):
        assert np.array_equal(ranks.members[name].values, rank_table(objects + others).values)
        expected = temperature_table(objects, others)
        assert np.array_equal(temperatures.members[name].values, expected.values)
        assert temperatures.members[name].parameters == expected.parameters
    votes = fitted("vote", stores, truths)
    for place, name in enumerate("xyz"):
        alone = [int(place == n) for n in range(3)]
        scores = [round(naive_score("mean-dice", members, alone, Fraction(k, 255), truths), 9) for k in range(1, 256)]
        best = [k for k, score in enumerate(scores, 1) if score == max(scores)]
        code = min(best, key=lambda k: (abs(2 * k - 255), -k))
        assert votes.members[name].parameters == {"threshold": f"{code}/255"}
        assert votes.members[name].values.tolist() == [0] * code + [65535] * (256 - code)


@pytest.mark.parametrize("kind", KINDS)
def test_fits_without_a_fold_read_nothing_again(store, kind):
    members, truths = drawn(5, images=7)
    stores = {name: store(name, maps) for name, maps in zip("xyz", members, strict=True)}
    parts = {image_id: number % 3 for number, image_id in enumerate(truths)}
    counts = count_codes(stores, list(truths), lambda i, _: mask_bits(truths[i]), parts, threads=2)
    for fold in (None, 0, 1, 2):
        some = {i: truth for i, truth in truths.items() if parts[i] != fold}
        found = space_of(kind, counts.only(some))
        assert found.to_json() == fitted(kind, stores, some).to_json()
    if kind not in ("probability", "logit"):
        assert space_of(kind, counts).to_json() != found.to_json()


def test_what_cannot_be_fitted(store):
    members, truths = drawn(5, images=4, members=1)
    stores = {"x": store("x", members[0], leave=("a_3",))}
    with pytest.raises(StoreError, match="a_3"):
        fitted("rank", stores, truths)
    del truths["a_3"]
    counts = count_codes(stores, list(truths), lambda i, _: mask_bits(truths[i]), {"a_0": 0, "a_1": 0, "a_2": 1})
    with pytest.raises(DataError, match=r"of part 0 as a whole: image 'a_1'"):
        counts.only(["a_0", "a_2"])
    with pytest.raises(DataError, match="image 'b_1' is not among"):
        counts.only(["a_2", "b_1"])
    for kind in ("rank", "vote", "temperature"):
        with pytest.raises(DataError, match="no image to fit"):
            fitted(kind, stores, {})
    for fit in (lambda: fitted("cube", stores, truths), lambda: space_of("cube", counts)):
        with pytest.raises(
            UsageError, match="'cube' is unknown: there are probability, logit, rank, temperature, vote"
        ):
            fit()


def test_a_majority_of_nine(store):
    """Each of nine votes at its own threshold, one of them twice: the winners' way, in booleans."""
    members, truths = drawn(8, members=9, images=3, spread=120)
    names = "abcdefghi"
    stores = {name: store(name, maps) for name, maps in zip(names, members, strict=True)}
    space = fitted("vote", stores, truths)
    weights = {name: 2 if name == "e" else 1 for name in names}
    found = Blend(stores, weights, "32768/65535", space=space)
    cuts = [int(space.members[name].parameters["threshold"].split("/")[0]) for name in names]
    for image_id, mask in found:
        votes = np.array([maps[image_id] >= cut for maps, cut in zip(members, cuts, strict=True)])
        assert np.array_equal(mask, votes.sum(0) + votes[4] > 5)
        assert np.array_equal(Blend(stores, weights, "0.5", space=space).mask(image_id), votes.sum(0) + votes[4] >= 5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_search_finds_is_what_the_blend_scores(store, kind):
    members, truths = drawn(11, images=5)
    stores = {name: store(name, maps) for name, maps in zip("xyz", members, strict=True)}
    space = fitted(kind, stores, truths)
    low, high = space.thresholds(Fraction(1, 4), Fraction(3, 4))
    pixels = keep_disputed(
        list(stores.values()),
        list(truths),
        lambda i, _: mask_bits(truths[i]),
        low,
        high,
        tables=space.tables(list(stores)),
        threads=1,
    )
    best = search(pixels, rounds=6, restarts=1).best
    combined = Blend(stores, dict(zip("xyz", best.weights, strict=True)), best.threshold, space=space)
    scores = []
    for image_id, mask in combined:
        truth = truths[image_id]
        areas = int(mask.sum() + truth.sum())
        scores.append(2 * int((mask & truth).sum()) / areas if areas else 1.0)
    assert best.score == functools.reduce(lambda a, b: a + b, scores) / len(scores)


def naive_expected(values, weights, full_scale):
    """The mask by trying every cut in fractions, least mask of equals, and its threshold's level."""
    level = sum(w * v for w, v in zip(weights, values, strict=True)) // sum(weights)
    best = (Fraction(-1), None)
    mass = int(level.sum())
    for k in sorted({int(v) for v in level.ravel()} - {0}, reverse=True):
        on = level >= k
        value = Fraction(2 * int(level[on].sum()), full_scale * int(on.sum()) + mass)
        best = (value, on) if value > best[0] else best
    return best[1] if best[1] is not None else np.zeros(level.shape, np.bool_)


@pytest.mark.parametrize("kind", ["probability", "temperature"])
@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_each_image_is_cut_at_its_own_expected_dice(store, kind, layout):
    members, truths = drawn(12, images=5, spread=200)
    members = [{i: codes // np.uint8(n + 1) for i, codes in maps.items()} for n, maps in enumerate(members)]
    members = [{**maps, "nothing": np.zeros((3, 5), np.uint8)} for maps in members]
    truths["nothing"] = np.zeros((3, 5), np.bool_)
    stores = {name: store(name, maps) for name, maps in zip("xyz", members, strict=True)}
    if layout == "packed":
        for found in stores.values():
            pack_store(found.path)
        stores = {name: open_store(found.path) for name, found in stores.items()}
    space = fitted(kind, stores, truths)
    values, full = members, 255
    if kind == "temperature":
        values, full = in_space(members, space.tables("xyz")), 65535
    combined = blend(stores, "x=1,y=2,z=2", space=space, cut="expected-dice")
    fixed = dict(blend(stores, "x=1,y=2,z=2", space=space))
    scores = {}
    for image_id, mask in combined:
        expected = naive_expected([maps[image_id].astype(np.int64) for maps in values], (1, 2, 2), full)
        assert np.array_equal(mask, expected), image_id
        assert np.array_equal(mask, bits_mask(combined.bits(image_id), combined.size(image_id)))
        areas = int(mask.sum() + truths[image_id].sum())
        scores[image_id] = 2 * int((mask & truths[image_id]).sum()) / areas if areas else 1.0
        assert not (fixed[image_id] & ~mask).any()  # the cut is at one half or under it
    assert scores["nothing"] == 1
    found = expected_dice_scores(
        stores, {"z": 2, "x": 1, "y": 2}, list(truths), lambda i, _: mask_bits(truths[i]), space=space, threads=2
    )
    assert found == scores


def test_cuts_that_cannot_be_meant(store):
    stores = {"a": store("a", maps(1))}
    with pytest.raises(UsageError, match="cut 'best' is unknown: there are threshold, expected-dice"):
        Blend(stores, cut="best")
    for kind in ("logit", "rank", "vote"):
        space = Space(kind, {"a": MemberTable(logit_table(255).values, {})})
        with pytest.raises(UsageError, match=f"values of the space {kind} are no probabilities"):
            Blend(stores, space=space, cut="expected-dice")
        with pytest.raises(UsageError, match="no probabilities"):
            expected_dice_scores(stores, "equal", ["one"], lambda i, _: None, space=space)
