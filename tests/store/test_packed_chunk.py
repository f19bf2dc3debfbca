"""The file of a packed chunk: what it holds, what is read of it, and that damage and lies do no harm."""

from __future__ import annotations

import runpy
import struct
import tracemalloc
import zlib
from pathlib import Path

import google_crc32c
import numcodecs.lz4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens.core.packed import STRIPE
from carvana_ens.errors import StoreError
from carvana_ens.store.chunks import ChunkError
from carvana_ens.store.packed_chunk import ENTRY, HEADER, PackedChunk, assemble, encode
from carvana_ens.types import Size

TWINS = runpy.run_path(str(Path(__file__).parents[1] / "core" / "reference.py"))
FIELDS = ENTRY.names
PLACES = ("hot_at", "cold_at")


def images(dtype, size=(17, 61)):
    """Maps of several sizes and kinds, and one that is not there."""
    kinds = TWINS["sure_kinds"](size, dtype)
    smaller = TWINS["sure_kinds"]((9, 50), dtype, 1)
    return [kinds["noise and edge"], None, smaller["disk"], kinds["random"], kinds["all full"], smaller["noise"]]


def file_of(maps, size=(17, 61)):
    itemsize = next(codes.dtype.itemsize for codes in maps if codes is not None)
    parts = [None if codes is None else encode(codes) for codes in maps]
    return b"".join(assemble(parts, itemsize, Size(*size)))


def opened(data, maps, size=(17, 61), log=None):
    def read_at(at, size):
        if log is not None:
            log.append((at, size))
        return data[at : at + size]

    dtype = next(codes.dtype for codes in maps if codes is not None)
    return PackedChunk(read_at, len(maps), dtype, Size(*size))


def hot_part(chunk, entry):
    words = np.zeros(chunk.hot_words(entry), np.uint64)
    chunk.read_hot(entry, words)
    return words


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_are_read_back(dtype):
    maps = images(dtype)
    chunk = opened(file_of(maps), maps)
    assert [entry is None for entry in chunk.images] == [codes is None for codes in maps]
    for codes, entry in zip(maps, chunk.images, strict=True):
        if codes is not None:
            out = np.full(codes.shape, 77, dtype)
            chunk.read(entry, out)
            assert np.array_equal(out, codes)
            assert (entry.height, entry.width) == codes.shape
            assert entry.codes_crc == zlib.crc32(codes.astype(f"<u{codes.dtype.itemsize}").tobytes())


@pytest.mark.parametrize("dtype", ["<u1", "<u2"])
def test_the_file_is_what_the_module_says(dtype):
    """Read with struct, crc32c and LZ4 alone, and the slow twins of the kernels."""
    maps = images(np.dtype(dtype).type)
    data = file_of(maps)
    magic, *facts, crc = struct.unpack("<8sIIIII", data[:28])
    head = data[:24] + data[28 : 28 + 48 * len(maps)]
    assert (magic, facts) == (b"cve-pk02", [len(maps), int(dtype[-1]), 17, 61])
    assert crc == google_crc32c.value(head)
    at = 28 + 48 * len(maps)
    full = 255 if dtype == "<u1" else 65535
    entries = [struct.unpack_from("<IIIIIIIIQQ", data, 28 + 48 * number) for number in range(len(maps))]
    for codes, (height, width, words, hots, colds, hot_crc, _, size, hot_at, _) in zip(maps, entries, strict=True):
        if codes is None:
            assert (height, size, hot_at) == (0, 0, 0)
            continue
        assert (height, width, hot_at) == (*codes.shape, at)
        at += size
        assert google_crc32c.value(data[hot_at:at]) == hot_crc
        block = data[hot_at : at - 8 * -(-colds // 512)]
        assert len(numcodecs.lz4.decompress(block)) == 8 * words + hots * 32 * int(dtype[-1])
    for codes, (_, _, words, _, colds, _, _, size, hot_at, cold_at) in zip(maps, entries, strict=True):
        if codes is None:
            continue
        assert cold_at == at
        table = hot_at + size - 8 * -(-colds // 512)
        half, cold, left = 16 if full == 255 else 48, b"", colds
        for length, stripe_crc in struct.iter_unpack("<II", data[table : hot_at + size]):
            assert google_crc32c.value(data[at : at + length]) == stripe_crc
            octets = half * min(left, 512)
            cold += numcodecs.lz4.decompress(octets.to_bytes(4, "little") + data[at : at + length])
            left -= 512
            at += length
        hot = numcodecs.lz4.decompress(data[hot_at:table])
        halves = TWINS["whole_halves"](codes.ravel())
        planes = TWINS["read_planes"](np.frombuffer(hot[: 8 * words], "<u8"), len(halves) // 32)
        expected, *literals = TWINS["split"](halves, 12 * full // 255, 243 * full // 255, full)
        assert np.array_equal(planes, expected)
        assert hot[8 * words :] == literals[0].astype(dtype).tobytes()
        assert cold == TWINS["fold"](literals[1], full).tobytes()
    assert at == len(data)


def test_what_a_blend_reads_comes_first_and_is_read_alone():
    maps, log = images(np.uint8), []
    data = file_of(maps)
    chunk = opened(data, maps, log=log)
    assert log == [(0, HEADER.size + len(maps) * ENTRY.itemsize)]
    there = [entry for entry in chunk.images if entry is not None]
    end = log.pop()[1]
    for entry in there:
        hot_part(chunk, entry)
        assert log == [(end, entry.hot_size)]
        end += log.pop()[1]
    assert min(entry.cold_at for entry in there) == end


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cold_halves_are_read_by_stripes(dtype):
    codes = TWINS["sure_kinds"]((400, 211), dtype)["noise"]
    log = []
    data = file_of([codes], codes.shape)
    chunk = opened(data, [codes], codes.shape, log)
    entry = chunk.images[0]
    full = np.iinfo(dtype).max
    _, _, cold = TWINS["split"](TWINS["whole_halves"](codes.ravel()), 12 * full // 255, 243 * full // 255, full)
    cold = TWINS["fold"](cold, full)
    assert entry.colds == len(cold) > 3 * STRIPE
    assert entry.colds % STRIPE
    for places in (
        [0],
        [STRIPE - 1, STRIPE],
        [entry.colds - 1],
        [5, 9, 2 * STRIPE],
        range(entry.colds),
        [],
    ):
        log.clear()
        chosen = np.array(places, np.int64)
        assert np.array_equal(chunk.read_cold(entry, chosen), cold[chosen])
        hot, *stripes = log
        assert hot == (entry.hot_at, entry.hot_size)
        assert len(stripes) == len({place // STRIPE for place in places})


def test_a_map_without_hot_or_cold_halves():
    maps = [np.full((5, 13), 255, np.uint8), np.zeros((5, 13), np.uint8)]
    log = []
    chunk = opened(file_of(maps, (5, 13)), maps, (5, 13), log)
    log.clear()
    for codes, entry in zip(maps, chunk.images, strict=True):
        assert (entry.hots, entry.colds) == (0, 0)
        out = np.full((5, 13), 77, np.uint8)
        chunk.read(entry, out)
        assert np.array_equal(out, codes)
    assert all(size > 0 for _, size in log)  # no server gives nothing


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-1], None),
        (lambda data: b"", "its header is cut"),
        (lambda data: data[:27], "its header is cut"),
        (lambda data: b"cve-pq02" + data[8:], "another file's"),
        (lambda data: data[:30] + b"?" + data[31:], "checksum of its header"),
    ],
)
def test_a_header_that_is_none(change, told):
    maps = images(np.uint8)
    data = change(file_of(maps))
    if told is None:
        opened(data, maps)
    else:
        with pytest.raises(ChunkError, match=f"is damaged .*{told}"):
            opened(data, maps)


@pytest.mark.parametrize(("version", "number"), [(b"01", "1"), (b"03", "3"), (b"12", "12")])
def test_another_version_of_the_form_is_said(version, number):
    maps = images(np.uint8)
    data = file_of(maps)
    with pytest.raises(ChunkError, match=f"is packed in form {number}, this version of carvana-ens reads form 2$"):
        opened(data[:6] + version + data[8:], maps)


def test_a_chunk_of_another_store_is_refused():
    maps = images(np.uint8)
    data = file_of(maps)
    with pytest.raises(ChunkError, match=r"is another's: it says \[6, 1, 17, 61\], expected \[6, 1, 17, 62\]"):
        opened(data, maps, (17, 62))
    with pytest.raises(ChunkError, match=r"is another's: it says \[6, 1, 17, 61\], expected \[6, 2, 17, 61\]"):
        opened(data, images(np.uint16))


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), StoreError("s3://b/m.zarr cannot be read: 503")])
def test_what_cannot_be_read_is_said_without_a_cure(error):
    maps = images(np.uint8)
    data, broken = file_of(maps), []

    def read_at(at, size):
        if broken:
            raise error
        return data[at : at + size]

    chunk = PackedChunk(read_at, len(maps), np.dtype(np.uint8), Size(17, 61))
    broken.append(True)
    for read in (
        lambda: PackedChunk(read_at, len(maps), np.dtype(np.uint8), Size(17, 61)),
        lambda: hot_part(chunk, chunk.images[0]),
        lambda: chunk.read_cold(chunk.images[0], np.array([0])),
    ):
        with pytest.raises(ChunkError, match=r"cannot be read: (Input/output error$|s3://b/m)") as caught:
            read()
        assert not caught.value.cure


def outcome(data, maps, good):
    """Reads everything of a changed file; returns what was refused. Whatever was not is what the good file gives."""
    refused = []
    try:
        chunk = opened(data, maps)
    except ChunkError as error:
        return [str(error)] * len(maps)
    for number, codes in enumerate(maps):
        entry, truth = chunk.images[number], good.images[number]
        if entry is None or codes is None or (entry.height, entry.width) != codes.shape:
            refused += [] if entry is None and codes is None else ["is another's"]  # as the reader of the store says
            continue
        out = np.full(codes.shape, 77, codes.dtype)
        places = np.arange(truth.colds)
        for read, expected in (
            (lambda entry=entry, out=out: (chunk.read(entry, out), out)[1], codes),
            (lambda entry=entry: hot_part(chunk, entry), hot_part(good, truth)),
            (lambda entry=entry, places=places: chunk.read_cold(entry, places), good.read_cold(truth, places)),
        ):
            try:
                assert np.array_equal(read(), expected)
            except ChunkError as error:
                refused.append(str(error))
    return refused


def test_every_flipped_bit_and_every_cut_is_refused_or_does_no_harm():
    maps = images(np.uint8)
    data = file_of(maps)
    good = opened(data, maps)
    assert outcome(data, maps, good) == []
    ends = {HEADER.size, HEADER.size + len(maps) * ENTRY.itemsize}
    ends |= {entry.hot_at for entry in good.images if entry} | {entry.cold_at for entry in good.images if entry}
    rng = np.random.default_rng(7)
    places = {*rng.integers(0, len(data), 250).tolist(), *ends, *(end - 1 for end in ends), *range(0, 90, 5)}
    for at in sorted(places):
        bad = bytearray(data)
        bad[at] ^= 1 << rng.integers(8)
        assert outcome(bytes(bad), maps, good), at
    for length in sorted({*rng.integers(0, len(data), 50).tolist(), *ends}):
        assert outcome(data[:length], maps, good), length
    assert outcome(data + b"more", maps, good) == []  # nothing says that the file ends here; every part is checked


def resealed(data, count, change):
    """The file with another header, under the right checksum. change: of (facts, entries)."""
    magic, *facts, _ = HEADER.unpack_from(data)
    entries = np.frombuffer(data, ENTRY, count, HEADER.size).copy()
    change(facts, entries)
    head = HEADER.pack(magic, *facts, 0)[:-4]
    crc = google_crc32c.value(head + entries.tobytes())
    return head + crc.to_bytes(4, "little") + entries.tobytes() + data[HEADER.size + entries.nbytes :]


EXTREMES = [0, 1, 2, 31, 32, 63, 64, 2**16, 2**31 - 1, 2**31, 2**32 - 1]


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from([0, 2, 3, 4, 5]),
            st.sampled_from(FIELDS),
            st.one_of(
                st.sampled_from(EXTREMES),
                st.integers(0, 2**32 - 1),
                st.integers(-3, 3).map(lambda step: ("step", step)),
                st.sampled_from([2**62, 2**63 - 1, 2**63, 2**64 - 1]).map(lambda far: ("far", far)),
            ),
        ),
        min_size=1,
        max_size=2,
    )
)
def test_a_header_that_lies_under_a_right_checksum(changes):
    """Sizes, counts and places that cannot be: refused before anything is allocated for them."""
    maps = images(np.uint8)
    data = file_of(maps)
    good = opened(data, maps)

    def change(facts, entries):
        for number, field, value in changes:
            kind, amount = value if isinstance(value, tuple) else ("", value)
            if kind == "step":
                amount = int(entries[number][field]) + amount
            elif kind == "far" and field not in PLACES:
                amount = 2**32 - 1
            entries[number][field] = min(max(amount, 0), np.iinfo(entries.dtype[field]).max)

    lying = resealed(data, len(maps), change)
    tracemalloc.start()
    outcome(lying, maps, good)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "codes_crc"])
@pytest.mark.parametrize("step", [-1, 1])
def test_a_lie_of_one_is_refused_by_the_whole_map(field, step):
    maps = images(np.uint8)
    data = file_of(maps)

    def change(facts, entries):
        entries[0][field] = int(entries[0][field]) + step

    assert outcome(resealed(data, len(maps), change), maps, opened(data, maps))


@pytest.mark.parametrize("place", ["hot", "cold"])
@pytest.mark.parametrize("codes_more", [-32, 32, 10_000_000])
def test_a_frame_that_holds_another_number_of_codes(place, codes_more):
    """Fewer would leave what the buffer held before; more would be allocated."""
    maps = images(np.uint8)
    part = encode(maps[0])
    names = dict(zip(FIELDS, part.entry, strict=False))
    octets = bytes(max(8 * names["words"] + 32 * names["hots"] + codes_more, 0))
    hot, cold = part.hot, part.cold
    if place == "hot":
        hot = bytes(numcodecs.lz4.compress(octets)) + hot[-8:]
        names |= {"hot_crc": google_crc32c.value(hot), "hot_size": len(hot)}
    else:
        cold = bytes(numcodecs.lz4.compress(bytes(16 * names["colds"] + codes_more // 2)))[4:]
        hot = hot[:-8] + struct.pack("<II", len(cold), google_crc32c.value(cold))
        names |= {"hot_crc": google_crc32c.value(hot)}
        assert names["colds"] <= STRIPE
    lying = type(part)(tuple(names.values()), hot, cold)
    data = b"".join(assemble([lying], 1, Size(17, 61)))

    def read():
        chunk = opened(data, maps[:1])
        chunk.read(chunk.images[0], np.empty((17, 61), np.uint8))

    tracemalloc.start()
    with pytest.raises(ChunkError, match=f"does not decode .its {place} part|cannot be"):
        read()
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
