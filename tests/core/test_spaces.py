"""Blending spaces: tables looked up, written and read back, and refused."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from carvana_ens.core.space_tables import logit_table, vote_table
from carvana_ens.core.spaces import (
    KINDS,
    MemberTable,
    Space,
    SpaceBlend,
    bound_values,
    first_codes,
    look_up,
    scaled_tables,
)
from carvana_ens.core.weights import cut_sum
from carvana_ens.errors import DataError, UsageError

PIXELS = [1, 7, 8, 63, 64, 65, 1000]
DTYPES = {np.uint8: 255, np.uint16: 65535}


def rising(full_scale, seed=0):
    """A table with steps and flat parts."""
    steps = np.random.default_rng(seed).integers(0, 2 * 65535 // full_scale + 1, full_scale + 1)
    return np.minimum(steps.cumsum(), 65535).astype(np.uint16)


def space():
    return Space("logit", {"a": logit_table(255), "b": logit_table(65535), "c": logit_table(255)})


@pytest.mark.parametrize("dtype", DTYPES)
def test_looking_up_equals_the_twin(reference, dtype):
    table = rising(DTYPES[dtype])
    for pixels in PIXELS:
        for codes in reference.code_kinds(2, pixels, dtype, 128).values():
            out = np.full(2 * pixels, 9, np.uint16)
            look_up(table, codes[0], out[pixels:])  # a row of a stack begins anywhere
            assert out[pixels:].tolist() == reference.look_up(table, codes[0])
            assert (out[:pixels] == 9).all()


def test_looking_up_in_place(reference):
    table, codes = rising(65535), np.arange(65536, dtype=np.uint16)[::-1].copy()
    expected = reference.look_up(table, codes)
    look_up(table, codes, codes)
    assert codes.tolist() == expected


def tables_of(full_scale, members):
    """One rises, one votes, one is flat, and so on."""
    made = [rising(full_scale, 1), vote_table(full_scale // 2, full_scale).values, np.zeros(full_scale + 1, np.uint16)]
    made += [np.full(full_scale + 1, 65535, np.uint16), logit_table(full_scale).values]
    return scaled_tables((made * members)[:members], full_scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [[1], [65536], [2, 3], [5, 1, 1, 8, 13, 2]], ids=str)
def test_blends_and_bounds_of_values_equal_the_twins(reference, dtype, weights):
    full_scale, factors = DTYPES[dtype], np.array(weights, np.uint32)
    tables = tables_of(full_scale, len(weights))
    for threshold in (Fraction(1, 2), Fraction(1, 65535), Fraction(1), Fraction(2, 3)):
        cut = cut_sum(threshold, 65535, sum(weights))
        blend, level = SpaceBlend(tables, factors, cut), math.ceil(threshold * 65535)
        for pixels in (1, 63, 64, 65, 300):
            for kind, codes in reference.code_kinds(len(weights), pixels, dtype, full_scale // 2).items():
                expected = reference.bits_of(reference.blend_values(tables, codes, weights, cut))
                assert np.array_equal(blend.bits(codes), expected), (kind, pixels, threshold)
                for low, high in ((level, level), (max(level // 2, 1), level)):
                    found = bound_values(codes, tables, low, high)
                    for got, twin in zip(found, reference.bound_values(tables, codes, low, high), strict=True):
                        assert np.array_equal(got, reference.bits_of(twin)), (kind, pixels, low, high)


def test_every_cut_of_a_small_blend_of_values(reference):
    codes = np.random.default_rng(5).integers(0, 256, (3, 130)).astype(np.uint8)
    tables, weights = tables_of(255, 3), np.array([2, 7, 1], np.uint32)
    values = reference.values_of(tables, codes)
    sums = reference.sums(values, weights)
    for cut in sorted({*sums.tolist(), *(sums + 1).tolist(), 1, 655350} - {0, 655351}):
        assert np.array_equal(SpaceBlend(tables, weights, cut).bits(codes), reference.bits_of(sums >= cut))


def test_tables_of_one_scale():
    narrow, wide = rising(255), rising(65535)
    tables = scaled_tables([narrow, wide], 65535)
    assert np.array_equal(tables[0, ::257], narrow)
    assert np.array_equal(tables[1], wide)
    assert scaled_tables([narrow], 255).tolist() == [narrow.tolist()]
    assert first_codes(scaled_tables([narrow, np.zeros(256, np.uint16)], 255), 1).tolist() == [
        next(code for code, value in enumerate(narrow) if value),
        256,
    ]
    with pytest.raises(UsageError, match=r"tables of \[256, 65536\] values are not for codes of 0\.\.255"):
        scaled_tables([narrow, wide], 255)
    with pytest.raises(UsageError, match=r"tables of \[\]"):
        scaled_tables([], 255)


def test_what_cannot_be_blended():
    tables, ones = tables_of(255, 2), np.ones(2, np.uint32)
    for weights, cut in ((ones[:1], 9), (np.array([1, 0], np.uint32), 9), (ones, 0), (ones, 2 * 65535 + 1)):
        with pytest.raises(UsageError, match="are no blend: give one table a weight"):
            SpaceBlend(tables, weights, cut)
    blend = SpaceBlend(tables, ones, 9)
    with pytest.raises(UsageError, match=r"codes uint16 \(2, 9\) are not for tables \(2, 256\)"):
        blend.bits(np.zeros((2, 9), np.uint16))
    with pytest.raises(UsageError, match=r"uint32 \(3,\)"):
        blend.bits(np.zeros((3, 9), np.uint8))
    with pytest.raises(UsageError, match=r"codes uint8 \(3, 9\) are not for tables"):
        bound_values(np.zeros((3, 9), np.uint8), tables, 1, 2)


@pytest.mark.parametrize(
    ("table", "codes", "out", "told"),
    [
        (rising(255), np.zeros(4, np.uint16), np.zeros(4, np.uint16), "not for codes of uint16"),
        (rising(65535), np.zeros(4, np.uint8), np.zeros(4, np.uint16), "not for codes of uint8"),
        (rising(255).astype(np.int32), np.zeros(4, np.uint8), np.zeros(4, np.uint16), "table of int32"),
        (rising(255), np.zeros(4), np.zeros(4, np.uint16), "codes of float64"),
        (rising(255), np.zeros(4, np.uint8), np.zeros(5, np.uint16), r"into uint16 \(5,\)"),
        (rising(255), np.zeros(4, np.uint8), np.zeros(4, np.uint8), "into uint8"),
        (rising(255), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint16), r"\(2, 2\)"),
    ],
)
def test_what_cannot_be_looked_up(table, codes, out, told):
    with pytest.raises(UsageError, match=told):
        look_up(table, codes, out)


def test_a_space_survives_json():
    before = space()
    text = json.dumps(before.to_json())
    after = Space.from_json(json.loads(text))
    assert json.dumps(after.to_json()) == text
    assert (after.kind, list(after.members)) == ("logit", ["a", "b", "c"])
    for name, table in before.members.items():
        assert np.array_equal(after.members[name].values, table.values)
        assert after.members[name].parameters == {"clip": "1/510"}
    one = json.dumps(Space("logit", {"a": logit_table(255)}).to_json())
    assert len(one) < 1000  # a table of 256 values takes 684 characters
    assert Space.from_json(Space().to_json()).tables(["anybody"]) == ()


def test_a_table_in_a_file_is_what_it_says():
    # 0, 257, 514 ... 65535 as little-endian words, on any machine
    document = Space("rank", {"m": MemberTable((np.arange(256) * 257).astype(np.uint16), {})}).to_json()
    assert document["members"]["m"]["values"].startswith("AAABAQICAwME")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(schema=2), "schema 2, this version reads 1"),
        (lambda d: d.pop("kind"), "KeyError"),
        (lambda d: d.update(kind="cube"), "kind 'cube': there are probability, logit"),
        (lambda d: d.update(kind="probability"), "'probability' has 3 tables"),
        (lambda d: d.update(members={}), "'logit' has 0 tables"),
        (lambda d: d.update(members=[1]), "cannot be read"),
        (lambda d: d["members"]["b"].update(values="AAAA"), "table of member 'b' .* sha256"),
        (lambda d: d["members"]["b"].update(values="?"), "cannot be read"),
        (lambda d: d["members"]["b"].pop("sha256"), "sha256"),
    ],
)
def test_a_damaged_file_is_refused(change, told):
    document = json.loads(json.dumps(space().to_json()))
    change(document)
    with pytest.raises(DataError, match=told):
        Space.from_json(document)
    with pytest.raises(DataError, match="cannot be read"):
        Space.from_json(None)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros(255, np.uint16), r"uint16 \(255,\)"),
        (np.zeros(256, np.uint8), "uint8"),
        (np.zeros((1, 256), np.uint16), r"\(1, 256\)"),
        (np.r_[np.arange(99), 97, np.full(156, 300)].astype(np.uint16), "falls from 98 to 97 at code 99"),
    ],
)
def test_what_is_no_table(values, told):
    with pytest.raises(DataError, match=told):
        MemberTable(values, {})


def test_tables_come_in_the_order_asked_for():
    tables = space().tables(["b", "a"])
    assert [table.size for table in tables] == [65536, 256]
    with pytest.raises(UsageError, match=r"the space logit has no table of member 'd', only of a, b, c"):
        space().tables(["a", "d"])
    assert {Space(kind, {} if kind == "probability" else {"a": logit_table(255)}).kind for kind in KINDS} == set(KINDS)


def test_thresholds_of_a_space_cover_those_of_probabilities():
    low, high = Fraction(1, 4), Fraction(3, 4)
    assert Space().thresholds(low, high) == (low, high)
    early, late = rising(255, 1), rising(255, 2)
    found = Space("rank", {"a": MemberTable(early, {}), "b": MemberTable(late, {})})
    assert found.thresholds(low, high) == (
        Fraction(min(int(early[64]), int(late[64])), 65535),
        Fraction(max(int(early[192]), int(late[192])), 65535),
    )
    assert found.thresholds(low, high, ["b"]) == (Fraction(int(late[64]), 65535), Fraction(int(late[192]), 65535))
    flat = Space("rank", {"a": MemberTable(np.zeros(256, np.uint16), {})})
    assert flat.thresholds(low, high) == (Fraction(1, 65535),) * 2
    votes = Space("vote", {"a": vote_table(3, 255)})
    assert votes.thresholds(low, high) == (Fraction(1, 65535), 1)
    with pytest.raises(UsageError, match="'z'"):
        found.thresholds(low, high, ["z"])


@pytest.mark.parametrize(("full_scale", "slack"), [(255, 0), (65535, 3)])
def test_a_threshold_means_the_same_codes_in_a_space(full_scale, slack):
    """Near one half three neighbouring uint16 codes have one logit of 16 bits."""
    table = logit_table(full_scale)
    found = Space("logit", {"a": table})
    for threshold in (Fraction(1, 4), Fraction(1, 2), Fraction(2, 3), Fraction(191, 255)):
        moved, _ = found.thresholds(threshold, threshold)
        first_on = int(np.argmax(table.values >= moved * 65535))
        assert 0 <= math.ceil(threshold * full_scale) - first_on <= slack
