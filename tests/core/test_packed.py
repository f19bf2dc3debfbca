"""Packed maps: their parts equal the slow twins', and what is made of the parts equals what is made of all codes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import google_crc32c
import numcodecs.lz4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import carvana_ens
from carvana_ens.core import packed_blend_kernels as blending
from carvana_ens.core import packed_kernels as kernels
from carvana_ens.core.blend import blend_bits
from carvana_ens.core.packed import (
    HotPartError,
    HotParts,
    PackedBlend,
    can_blend,
    cold_octets,
    halves_of,
    pack_map,
    unpack_map,
)
from carvana_ens.core.rle import rle_encode_bits_bytes
from carvana_ens.core.weights import cut_sum
from carvana_ens.errors import DataError

SIZES = [(1, 1), (1, 31), (32, 1), (1, 33), (1, 63), (8, 8), (5, 13), (1, 96), (3, 43), (17, 61), (64, 65), (1, 4097)]
"""One row, one column, odd; pixel counts on both sides of the 32 of a half and the 64 that two of them make."""
DTYPES = {np.uint8: 255, np.uint16: 65535}
WEIGHTS = {"one": [1], "equal": [1, 1, 1], "skewed": [65533, 2, 1], "many": [5, 1, 1, 8, 13, 2]}
THRESHOLDS = [Fraction(text) for text in ("1/4", "0.37", "1/2", "128/255", "0.62", "0.9")]


def ends(full):
    return 12 * full // 255, 243 * full // 255


def some_kinds(reference, members, size, dtype):
    """Groups of M maps by name: of one kind with other noise each, and of all kinds mixed."""
    rounds = [reference.sure_kinds(size, dtype, seed) for seed in range(members)]
    groups = {name: [kinds[name] for kinds in rounds] for name in rounds[0]}
    names = list(rounds[0])
    for turn in range(0, len(names), 3):
        groups[f"mixed {turn}"] = [kinds[names[(turn + 5 * m) % len(names)]] for m, kinds in enumerate(rounds)]
    return groups


class Hot:
    """The hot parts of maps in one buffer, as ``PackedBlend`` takes them, and their cold halves, whose reads count."""

    def __init__(self, maps):
        parts = [tuple(part.copy() for part in pack_map(codes)) for codes in maps]
        pieces = [np.concatenate([words, literals.view(np.uint64)]) for words, literals, _ in parts]
        self.cold_halves = [
            cold.reshape(-1, 16 if codes.dtype == np.uint8 else 48)
            for (*_, cold), codes in zip(parts, maps, strict=True)
        ]
        self.buffer = np.concatenate(pieces)
        self.starts = np.cumsum([0, *map(len, pieces[:-1])])
        self.words = np.array([len(words) for words, *_ in parts])
        self.pixels = maps[0].size
        self.dtypes = [codes.dtype for codes in maps]
        self.read = []

    def cold(self, member, places):
        self.read.append((member, places.tolist()))
        return self.cold_of(member, places)

    def stored(self):
        """The parts as files hold them: LZ4 by numcodecs, and the tables of the stripes."""
        pieces, tables = np.split(self.buffer, self.starts[1:]), []
        for stripes in self.stripes():
            entries = [number for stripe in stripes for number in (len(stripe), google_crc32c.value(stripe))]
            tables.append(np.array(entries, "<u4").tobytes())
        return [numcodecs.lz4.compress(piece) + table for piece, table in zip(pieces, tables, strict=True)]

    def stripes(self):
        """The stripes of each cold part, 512 halves an LZ4 block."""
        return [
            [numcodecs.lz4.compress(halves[at : at + 512].copy())[4:] for at in range(0, len(halves), 512)]
            for halves in self.cold_halves
        ]

    def parts(self, stored, handles=None, places=None, cold_places=None):
        count = len(stored)
        return HotParts(
            handles=np.full(count, -1) if handles is None else handles,
            places=np.zeros(count, np.int64) if places is None else places,
            begins=np.cumsum([0, *map(len, stored)]),
            crcs=np.array([google_crc32c.value(part) for part in stored], np.uint32),
            starts=np.append(self.starts, len(self.buffer)),
            words=self.words,
            cold_places=np.zeros(count, np.int64) if cold_places is None else cold_places,
            colds=np.array([len(halves) for halves in self.cold_halves]),
        )

    def given(self, blend):
        """By a ``PackedBlend`` to which every part is given."""
        stored = self.stored()
        bits = blend.bits(self.parts(stored), self.pixels, stored.__getitem__, self.cold)
        read, self.read = self.read, []
        assert blend.rle(self.parts(stored), self.pixels, stored.__getitem__, self.cold) == rle_encode_bits_bytes(
            bits.copy(), self.pixels
        )
        self.read = read
        return blend.bits(self.parts(stored), self.pixels, stored.__getitem__, self.cold_of)

    def cold_of(self, member, places):
        return self.cold_halves[member][places]

    def bits(self, weights, cut, full_scale):
        return self.given(PackedBlend(np.array(weights, np.uint32), self.dtypes, cut, full_scale))


def one_scale(maps):
    """(codes (M, P) int64 in the widest map's scale, full scale)."""
    full = max(DTYPES[codes.dtype.type] for codes in maps)
    return np.stack([codes.reshape(-1).astype(np.int64) * (full // DTYPES[codes.dtype.type]) for codes in maps]), full


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_parts_are_the_twins_and_give_the_map_back(reference, size, dtype):
    full = DTYPES[dtype]
    for name, codes in reference.sure_kinds(size, dtype).items():
        words, hot, cold = (part.copy() for part in pack_map(codes))
        flat = reference.whole_halves(codes.reshape(-1))
        planes, hots, colds = reference.split(flat, *ends(full), full)
        assert np.array_equal(words, reference.write_planes(planes)), name
        assert (hot.dtype, cold.dtype) == (np.uint8, np.uint8)
        assert np.array_equal(hot.view(dtype).reshape(-1, 32), hots), name
        assert np.array_equal(cold, reference.fold(colds, full).ravel()), name
        assert np.array_equal(reference.read_planes(words, halves_of(codes.size)), planes), name
        back = np.full(size, 77, dtype)
        unpack_map(words, hot.view(dtype), cold, back)
        assert np.array_equal(back, codes), name
        wide = np.full((size[0], size[1] + 3), 77, dtype)  # rows of a larger array
        unpack_map(words, hot.view(dtype), cold, wide[:, : size[1]])
        assert np.array_equal(wide[:, : size[1]], codes), name
        assert (wide[:, size[1] :] == 77).all()
    assert halves_of(codes.size) == len(flat) // 32


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_half_occurs(reference, dtype):
    """What the tests of this file run on: halves that are hot, cold at either end, and all 0 or full."""
    full, seen = DTYPES[dtype], np.zeros(4, np.int64)
    for codes in reference.sure_kinds((17, 61), dtype).values():
        flat = reference.whole_halves(codes.reshape(-1))
        (low, high, exact), _, _ = reference.split(flat, *ends(full), full)
        seen += [(~low & ~high).sum(), exact.sum(), (low & ~exact).sum(), (high & ~exact).sum()]
    assert (seen > 9).all()


def kernel_split(flat, full):
    planes = np.empty((3, -(-len(flat) // 2048)), np.uint64)
    size = cold_octets(flat.itemsize)
    hot, cold = np.empty_like(flat), np.empty(size * (flat.size // 32), np.uint8)
    hots, colds = kernels.split(flat, *ends(full), full, planes, hot, cold)
    return planes, hot[: 32 * hots], cold[: size * colds]


def unpacked(words, halves):
    """Bit words (3, W) as bool (3, halves)."""
    return np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, :halves] == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_equal_their_twins(reference, dtype):
    full, rng = DTYPES[dtype], np.random.default_rng(5)
    for blocks in (1, 2, 31, 32, 33, 65, 129):
        flat = np.concatenate([reference.sure_kinds((1, 64), dtype, n)["few bounds"].ravel() for n in range(blocks)])
        flat[rng.random(len(flat)) < 0.002] = full // 2
        planes, hot, cold = kernel_split(flat, full)
        expected, hots, colds = reference.split(flat, *ends(full), full)
        assert np.array_equal(unpacked(planes, 2 * blocks), expected)
        assert not unpacked(planes, 64 * planes.shape[1])[:, 2 * blocks :].any()
        assert np.array_equal(hot, hots.ravel())
        assert np.array_equal(cold, reference.fold(colds, full).ravel())
        words = np.empty(planes.size + 3 * -(-planes.shape[1] // 64), np.uint64)
        words = words[: kernels.write_planes(planes, words)]
        assert np.array_equal(words, reference.write_planes(expected))
        again, shifted = np.empty_like(planes), np.concatenate([[np.uint64(9)], words, [np.uint64(7)]])
        assert kernels.read_planes(shifted, 1, words.size, 2 * blocks, again) == (len(hots), len(colds))
        assert np.array_equal(again, planes)
        joined = np.empty_like(flat)
        kernels.join(planes, 2 * blocks, full, hot, cold, joined)
        assert np.array_equal(joined, flat)
        assert np.array_equal(reference.join(expected, full, hots, colds).ravel(), flat)


@settings(max_examples=200, deadline=None)
@given(
    halves=st.sampled_from([2, 62, 64, 66, 128, 130, 64 * 64, 64 * 64 + 2]),
    damage=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 63)), max_size=3),
    length=st.integers(-2, 2),
    density=st.sampled_from([0.0, 0.01, 0.5]),
    seed=st.integers(0, 1000),
)
def test_planes_are_read_as_the_twin_reads_them_or_refused(reference, halves, damage, length, density, seed):
    rng = np.random.default_rng(seed)
    low = rng.random(halves) < 0.5 if density == 0.5 else np.cumsum(rng.random(halves) < density) % 2 == 0
    high = ~low & (rng.random(halves) < 1 - density)
    short = reference.write_planes(np.stack([low, high, (low | high) & (rng.random(halves) < 0.5)]))
    for at, bit in damage:
        short[at % len(short)] ^= np.uint64(1) << np.uint64(bit)
    short = np.concatenate([short, rng.integers(0, 9, 2, dtype=np.uint64)])[: max(len(short) + length, 0)]
    planes = np.zeros((3, -(-halves // 64)), np.uint64)
    buffer = np.concatenate([short, np.full(300, 0xFFFF_FFFF_FFFF_FFFF, np.uint64)])  # nothing after it is believed
    hots, colds = kernels.read_planes(buffer, 0, len(short), halves, planes)
    expected = reference.read_planes(short, halves)
    if expected is None:
        assert (hots, colds) == (-1, -1)
    else:
        is_low, is_high, exact = expected
        assert np.array_equal(unpacked(planes, halves), expected)
        assert (hots, colds) == ((~is_low & ~is_high).sum(), ((is_low | is_high) & ~exact).sum())


def test_parts_that_do_not_belong_to_the_map_are_refused(reference):
    codes = reference.sure_kinds((17, 61), np.uint8)["noise and edge"]
    words, hot, cold = (part.copy() for part in pack_map(codes))
    out = np.empty((17, 61), np.uint8)
    for parts in (
        (words[:-1], hot, cold),
        (np.append(words, words[-1:]), hot, cold),
        (words, hot[:-32], cold),
        (words, hot, cold[:-16]),
        (words, hot, np.append(cold, cold[:16])),
        (words[:0], hot, cold),
    ):
        with pytest.raises(DataError, match="do not fit 17x61 pixels"):
            unpack_map(*parts, out)
    with pytest.raises(DataError, match="do not fit 1x64 pixels"):
        unpack_map(words, hot, cold, np.empty((1, 64), np.uint8))


@pytest.mark.parametrize("dtypes", [[np.uint8], [np.uint16], [np.uint8, np.uint16]], ids=["uint8", "uint16", "mixed"])
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("size", [(1, 1), (5, 13), (17, 61), (64, 65)], ids=str)
def test_a_blend_equals_the_sum_of_all_codes(reference, size, name, dtypes):
    weights, settled = WEIGHTS[name], 0
    types = [dtypes[member % len(dtypes)] for member in range(len(weights))]
    kinds = [some_kinds(reference, len(weights), size, dtype) for dtype in dict.fromkeys(types)]
    for kind in kinds[0]:
        maps = [kinds[list(dict.fromkeys(types)).index(dtype)][kind][m] for m, dtype in enumerate(types)]
        codes, full = one_scale(maps)
        hot = Hot(maps)
        for threshold in THRESHOLDS:
            cut = cut_sum(threshold, full, sum(weights))
            assert can_blend(cut, sum(weights), full)
            expected = reference.bits_of(reference.blend(codes, weights, cut))
            assert np.array_equal(hot.bits(weights, cut, full), expected), (kind, threshold)
        settled += len(hot.read)
    if name in ("equal", "many") and size > (1, 1):
        assert settled > 0


def test_every_cut_of_the_road_and_none_beside_it(reference):
    weights = [3, 0, 2]
    maps = [reference.sure_kinds((5, 13), np.uint8, seed)["bounds"] for seed in range(3)]
    maps[0][:3], maps[2][:3] = 243, 12
    codes, _ = one_scale(maps)
    hot, low, high = Hot(maps), *ends(255)
    road = [cut for cut in range(1, 5 * 255 + 1) if can_blend(cut, 5, 255)]
    assert road == list(range(5 * low + 1, 5 * high + 1))
    for cut in road:
        expected = reference.bits_of(reference.blend(codes, weights, cut))
        assert np.array_equal(hot.bits(weights, cut, 255), expected), cut
    assert hot.read


def test_what_is_open_is_what_the_twin_says_and_only_that_is_read(reference):
    """A member that is hot or sure against others that are cold: their codes are read where bits hang on them."""
    rng, weights, full = np.random.default_rng(4), [2, 1, 3], 255
    maps = [reference.sure_kinds((33, 61), np.uint8, seed)["noise"] for seed in range(3)]
    maps[0][10:20] = rng.integers(0, 256, (10, 61))
    maps[1][5:25, 20:40] = 127
    maps[2] = np.roll(maps[2], 7, axis=1)
    codes = np.stack([reference.whole_halves(codes.ravel()) for codes in maps])
    for threshold in THRESHOLDS:
        cut, hot = cut_sum(threshold, full, 6), Hot(maps)
        expected, chosen = reference.blend_files(codes, weights, cut, *ends(full), full)
        planes = [reference.split(flat, *ends(full), full)[0] for flat in codes]
        kinds = reference.find_halves(np.stack(planes), chosen)
        bits = hot.bits(weights, cut, full)
        wanted = [[place for kind, place in named if "cold" in kind] for named in kinds]
        assert hot.read == [(member, places) for member, places in enumerate(wanted) if places]
        sure = ~np.isin(np.arange(codes.shape[1]) // 32, chosen)
        got = np.unpackbits(bits.view(np.uint8), bitorder="little")[: maps[0].size] == 1
        assert np.array_equal(got[sure[: got.size]], expected[: got.size][sure[: got.size]])
        whole = reference.bits_of(reference.blend(codes[:, : got.size], weights, cut))
        assert np.array_equal(bits, whole)
        for half, bools in zip(chosen, reference.settle(codes, weights, cut, chosen), strict=True):
            assert np.array_equal(got[32 * half : 32 * half + 32], bools[: max(got.size - 32 * half, 0)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tie_inside_cold_halves_is_foreground(reference, dtype):
    """One member says 250, the other 5: they tie at 127.5 = 0.5 * 255, and hang on what only the cold parts know."""
    step = DTYPES[dtype] // 255
    high, low = np.full((4, 40), 250 * step, dtype), np.full((4, 40), 5 * step, dtype)
    low[2, 7] -= 1
    hot = Hot([high, low])
    bits = hot.bits([1, 1], cut_sum(Fraction(1, 2), 255 * step, 2), 255 * step)
    assert hot.read == [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 1, 2, 3, 4, 5])]
    assert np.array_equal(bits, reference.bits_of(np.arange(160) != 2 * 40 + 7))


def test_members_that_are_sure_are_not_read(reference):
    """Where both ends of what a cold half may be give the same bits, it is left alone."""
    full, noise = np.full((1, 64), 255, np.uint8), np.full((1, 64), 3, np.uint8)
    hot = Hot([full, noise])
    assert np.array_equal(hot.bits([2, 1], 255, 255), reference.bits_of(np.ones(64)))
    assert hot.read == []
    assert not hot.bits([1, 2], 400, 255).any()
    assert hot.read == []


def test_the_largest_sums_fit(reference):
    maps = [np.full((1, 70), 65535, np.uint16), np.full((1, 70), 65535, np.uint16)]
    maps[0][0, ::3] = 40000
    maps[1][0, 64:] = 243 * 257 + 3
    codes, full = one_scale(maps)
    weights = [65535, 1]
    hot = Hot(maps)
    for cut in (65536 * 12 * 257 + 1, 65536 * 243 * 257, 65535 * 40000 + 65535, 65535 * 40000 + 243 * 257 + 4):
        expected = reference.bits_of(reference.blend(codes, weights, cut))
        assert np.array_equal(hot.bits(weights, cut, full), expected), cut


def test_kinds_and_places_equal_the_twin(reference):
    full = 255
    flats = [
        reference.whole_halves(reference.sure_kinds((40, 200), np.uint8, n)[name].ravel())
        for n, name in enumerate(["noise and edge", "noise"])
    ]
    planes = [kernel_split(flat, full)[0] for flat in flats]
    chosen = np.array([0, 1, 5, 55, 63, 64, 65, 66, 90, 127, 128, 129])
    kinds, places = np.empty((len(chosen), 2), np.uint8), np.full((len(chosen), 2), -1)
    blending.find_halves(np.stack(planes), chosen, kinds, places)
    expected = reference.find_halves([reference.split(flat, *ends(full), full)[0] for flat in flats], chosen)
    names = {blending.NONE: "none", blending.FULL: "full", blending.HOT: "hot"}
    names |= {blending.LOW_COLD: "low cold", blending.HIGH_COLD: "high cold"}
    for member, named in enumerate(expected):
        got = [
            (names[kind], None if place < 0 else place)
            for kind, place in zip(*(a[:, member].tolist() for a in (kinds, places)), strict=True)
        ]
        assert got == named
    assert {kind for named in expected for kind, _ in named} >= {"hot", "low cold", "high cold"}


@pytest.mark.parametrize("fault", range(3))
def test_a_hot_part_that_does_not_fit_is_named(reference, fault):
    maps = [reference.sure_kinds((17, 61), np.uint8, seed)["noise and edge"] for seed in range(3)]
    cut = cut_sum(Fraction(1, 2), 255, 3)

    def told(change):
        hot = Hot(maps)
        change(hot)
        with pytest.raises(HotPartError, match=f"hot part of map {fault} does not fit") as caught:
            hot.bits([1, 1, 1], cut, 255)
        assert caught.value.member == fault

    told(lambda hot: hot.words.__setitem__(fault, hot.words[fault] - 1))
    told(lambda hot: hot.words.__setitem__(fault, 0))
    told(lambda hot: hot.buffer.__setitem__(hot.starts[fault], np.uint64(0xFFFF_FFFF_FFFF_FFFF)))

    def fewer_literals(hot):
        end = len(hot.buffer) if fault == 2 else hot.starts[fault + 1]
        hot.buffer = np.delete(hot.buffer, range(end - 4, end))
        hot.starts[fault + 1 :] -= 4

    def more_literals(hot):
        end = len(hot.buffer) if fault == 2 else hot.starts[fault + 1]
        hot.buffer = np.insert(hot.buffer, end, [1, 2, 3, 4])
        hot.starts[fault + 1 :] += 4

    told(fewer_literals)
    told(more_literals)


@contextmanager
def filed(hot, folder):
    """The parts of three maps in files at some place, and the files."""
    paths, cold_places = [folder / f"{member}.bin" for member in range(3)], []
    for member, (path, part, stripes) in enumerate(zip(paths, hot.stored(), hot.stripes(), strict=True)):
        head = bytes(7 * member) + part + b"more"
        cold_places.append(len(head))
        path.write_bytes(head + b"".join(stripes) + b"and more")
    handles = np.array([os.open(path, os.O_RDONLY) for path in paths])
    yield hot.parts(hot.stored(), handles, 7 * np.arange(3), np.array(cold_places)), paths
    for handle in handles.tolist():
        os.close(handle)


def unasked(*asked):
    raise AssertionError(asked)


@pytest.fixture
def in_files(reference, tmp_path):
    """Three maps, their parts in files, and the answer, which hangs on cold halves of each."""
    rng = np.random.default_rng(9)
    bands = [rng.integers(*ends, (11, 61), endpoint=True) for ends in ((120, 136), (244, 254), (1, 11))]
    maps = [np.vstack([bands[band - member] for band in range(3)]).astype(np.uint8) for member in range(3)]
    hot = Hot(maps)
    expected = hot.bits([1, 1, 1], 383, 255).copy()
    assert {member for member, _ in hot.read} == {0, 1, 2}
    with filed(hot, tmp_path) as (parts, paths):
        yield hot, paths, parts, expected


def test_parts_are_read_from_files_and_none_is_asked_for(in_files):
    hot, _, parts, expected = in_files
    blend = PackedBlend(np.ones(3, np.uint32), hot.dtypes, 383, 255)
    assert np.array_equal(blend.bits(parts, hot.pixels, unasked, unasked), expected)
    assert blend.rle(parts, hot.pixels, unasked, unasked) == rle_encode_bits_bytes(expected, hot.pixels)


@pytest.mark.parametrize("dtypes", [[np.uint8] * 3, [np.uint16] * 3, [np.uint8, np.uint16, np.uint8]], ids=str)
def test_many_open_halves_are_settled_from_files(reference, tmp_path, dtypes):
    """More than are settled at a time, in several stripes, the last one short."""
    rng = np.random.default_rng(8)
    sides = [rng.integers(*bounds, (311, 240), endpoint=True) for bounds in ((244, 254), (1, 11), (110, 140))]
    sides[2][:, 64:] = rng.integers(1, 12, (311, 176))
    steps = [DTYPES[dtype] // 255 for dtype in dtypes]
    maps = [(side * step).astype(dtype) for side, step, dtype in zip(sides, steps, dtypes, strict=True)]
    maps = [
        codes + rng.integers(0, step, codes.shape).astype(codes.dtype) for codes, step in zip(maps, steps, strict=True)
    ]
    (codes, full), weights = one_scale(maps), [2, 2, 1]
    cut = int(np.median(codes.T @ weights))
    hot = Hot(maps)
    whole = hot.bits(weights, cut, full).copy()
    assert np.array_equal(whole, reference.bits_of(reference.blend(codes, weights, cut)))
    assert {len(places) > 3 * blending.TOGETHER for _, places in hot.read} == {True}
    assert [len(stripes) for stripes in hot.stripes()] == [5, 5, 4]
    blend = PackedBlend(np.array(weights, np.uint32), hot.dtypes, cut, full)
    with filed(hot, tmp_path) as (parts, _):
        assert np.array_equal(blend.bits(parts, hot.pixels, unasked, unasked), whole)
        assert blend.rle(parts, hot.pixels, unasked, unasked) == rle_encode_bits_bytes(whole, hot.pixels)


@pytest.mark.parametrize("fault", range(3))
@pytest.mark.parametrize("damage", ["flipped", "cut", "too long", "nothing", "another length", "another checksum"])
def test_a_stripe_that_is_damaged_is_asked_for(in_files, damage, fault):
    """What is asked for is the cold halves of every member: whoever gives them finds the damage, or reads better."""
    hot, paths, parts, expected = in_files
    (stripe,), stored = hot.stripes()[fault], hot.stored()
    data, at, end = bytearray(paths[fault].read_bytes()), int(parts.cold_places[fault]), len(stored[fault])
    sizes = {"too long": 2**32 - 1, "nothing": 0, "another length": len(stripe) - 1}
    if damage == "flipped":
        data[at + len(stripe) // 2] ^= 1
    elif damage == "cut":
        data = data[: at + len(stripe) - 1]
    elif damage == "another checksum":
        data[7 * fault + end - 1] ^= 1
    else:
        changed = sizes[damage]
        crc = google_crc32c.value(bytes(data[at : at + changed])) if changed <= len(stripe) else 0
        data[7 * fault + end - 8 : 7 * fault + end] = np.array([changed, crc], "<u4").tobytes()
    paths[fault].write_bytes(data)
    crc = google_crc32c.value(bytes(data[7 * fault : 7 * fault + end]))
    parts = parts._replace(crcs=np.where(np.arange(3) == fault, crc, parts.crcs).astype(np.uint32))
    hot.read.clear()
    blend = PackedBlend(np.ones(3, np.uint32), hot.dtypes, 383, 255)
    assert np.array_equal(blend.bits(parts, hot.pixels, unasked, hot.cold), expected)
    assert [member for member, _ in hot.read] == [0, 1, 2]


@pytest.mark.parametrize("damage", ["flipped", "cut", "no file"])
@pytest.mark.parametrize("fault", range(3))
def test_a_part_that_cannot_be_read_or_is_damaged_is_asked_for(in_files, damage, fault):
    hot, paths, parts, expected = in_files
    stored, asked = hot.stored(), []
    data = bytearray(paths[fault].read_bytes())
    data[7 * fault + len(stored[fault]) // 2] ^= 4
    if damage == "no file":
        parts = parts._replace(handles=np.where(np.arange(3) == fault, 999_999, parts.handles))
    else:
        paths[fault].write_bytes(data if damage == "flipped" else data[: 7 * fault + 5])

    def give(member):
        asked.append(member)
        return stored[member]

    blend = PackedBlend(np.ones(3, np.uint32), hot.dtypes, 383, 255)
    assert np.array_equal(blend.bits(parts, hot.pixels, give, hot.cold), expected)
    assert asked == [fault]


def test_a_long_text_is_whole(reference):
    """More runs than there is room for at first."""
    codes = np.zeros((300, 640), np.uint8)
    codes[:, ::4] = 255
    hot = Hot([codes, codes])
    assert len(rle_encode_bits_bytes(hot.bits([1, 1], 255, 255), codes.size)) > 1 << 17


def test_threads_blend_alike(reference):
    jobs = []
    for seed in range(30):
        maps = [reference.sure_kinds((9 + seed, 50), np.uint8, 100 * seed + m)["noise and edge"] for m in range(3)]
        maps[1] = np.roll(maps[1], 9, axis=1)
        jobs.append((Hot(maps), one_scale(maps)[0]))
    blend = PackedBlend(np.array([1, 2, 1], np.uint32), jobs[0][0].dtypes, 510, 255)

    def one(job):
        hot, _ = job
        return hot.given(blend).copy()

    with ThreadPoolExecutor(4) as pool:
        for bits, (_, codes) in zip(pool.map(one, jobs), jobs, strict=True):
            assert np.array_equal(bits, reference.bits_of(reference.blend(codes, [1, 2, 1], 510)))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 200)),
    dtypes=st.lists(st.sampled_from(list(DTYPES)), min_size=1, max_size=5),
    names=st.lists(st.integers(0, 11), min_size=5, max_size=5),
    weights=st.lists(st.integers(1, 2000), min_size=5, max_size=5),
    where=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_any_blend_equals_the_plain_one(reference, size, dtypes, names, weights, where, seed):
    maps = [list(reference.sure_kinds(size, dtype, seed + m).values())[names[m]] for m, dtype in enumerate(dtypes)]
    weights = weights[: len(maps)]
    codes, full = one_scale(maps)
    low, high = (sum(weights) * end for end in ends(full))
    cut = int(low + 1 + where * (high - low - 1))
    plain = codes.astype(np.uint8 if full == 255 else np.uint16)
    expected = blend_bits(plain, np.array(weights, np.uint32), cut)
    assert np.array_equal(expected, reference.bits_of(reference.blend(codes, weights, cut)))
    assert np.array_equal(Hot(maps).bits(weights, cut, full), expected)


SCRIPT = """
import numpy as np
import numcodecs.lz4
from carvana_ens.core.packed import HotParts, PackedBlend, pack_map, unpack_map
rng = np.random.default_rng(0)
for dtypes, full in (([np.uint8, np.uint8], 255), ([np.uint16, np.uint8], 65535)):
    maps = [np.repeat(rng.choice([0, 0, 3, 120, 250, 255, 255], (6, 7)), 40, 1).astype(dtype) for dtype in dtypes]
    maps = [(codes * (np.iinfo(codes.dtype).max // 255)).astype(codes.dtype) for codes in maps]
    parts = [tuple(part.copy() for part in pack_map(codes)) for codes in maps]
    for codes, (words, hot, cold) in zip(maps, parts):
        back = np.empty_like(codes)
        unpack_map(words, hot.view(codes.dtype), cold, back)
        assert np.array_equal(back, codes)
    pieces = [np.concatenate([words, hot.view(np.uint64)]) for words, hot, _ in parts]
    blend = PackedBlend(np.array([1, 1], np.uint32), [codes.dtype for codes in maps], full, full)
    read = []
    def cold(member, places):
        read.append(member)
        return parts[member][2].reshape(-1, 48 if dtypes[member] == np.uint16 else 16)[places]
    colds = np.array([cold.size // (48 if dtype == np.uint16 else 16) for (*_, cold), dtype in zip(parts, dtypes)])
    stored = [numcodecs.lz4.compress(piece) + bytes(8) for piece in pieces]
    assert ((0 < colds) & (colds <= 512)).all()
    hot = HotParts(
        np.full(2, -1), np.zeros(2, np.int64), np.cumsum([0, *map(len, stored)]), np.zeros(2, np.uint32),
        np.cumsum([0, *map(len, pieces)]), np.array([len(words) for words, _, _ in parts]),
        np.zeros(2, np.int64), colds,
    )
    bits = blend.bits(hot, maps[0].size, stored.__getitem__, cold)
    sums = sum(codes.astype(int) * (full // np.iinfo(codes.dtype).max) for codes in maps).ravel()
    expected = np.packbits(np.append(sums >= full, np.zeros(-sums.size % 64, bool)), bitorder="little").view(np.uint64)
    assert np.array_equal(bits, expected) and read
print("equal")
"""


def test_slow_twins_stand_in_where_the_compiler_is_off():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(carvana_ens.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("equal\n", "")
