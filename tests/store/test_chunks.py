"""Reading maps in every layout: equal to zarr's own reading, or one StoreError that names the image."""

from __future__ import annotations

import gzip
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)

from carvana_ens.errors import StoreError, UsageError
from carvana_ens.store.chunks import DirectReader
from carvana_ens.store.foreign import ZarrReader
from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

HERE = Provenance(member={"name": "m"}, split="test", seen="none")
COMPRESSORS = {
    "none": [],
    "zstd1": [ZstdCodec(level=1)],
    "zstd19": [ZstdCodec(level=19, checksum=True)],
    "blosc": [BloscCodec(cname="lz4", shuffle="bitshuffle")],
    "gzip": [GzipCodec(level=3)],
}
LAYOUTS = {  # images a chunk, images a shard
    "one": (1, None),
    "several": (3, None),
    "all": (7, None),
    "sharded": (1, 3),
    "sharded chunks": (2, 4),
    "shard of one": (1, 1),
}


def images(count, dtype, seed=0, sizes=None):
    """Maps by id: noise, all zero, blobs of the ends of the scale, one code."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    kinds = itertools.cycle(
        [
            lambda size: rng.integers(0, top, size, dtype, endpoint=True),
            lambda size: np.zeros(size, dtype),
            lambda size: (rng.integers(0, 2, size, dtype) * top).astype(dtype),
            lambda size: np.full(size, top // 3, dtype),
        ]
    )
    sizes = sizes or [(9 + 2 * (number % 3), 21 - number % 2) for number in range(count)]
    return {f"img_{number:02d}": next(kinds)(size) for number, size in enumerate(sizes)}


def written(path, maps):
    dtype = str(next(iter(maps.values())).dtype)
    with StoreWriter(path, tuple(maps), [Size(*codes.shape) for codes in maps.values()], HERE, dtype) as writer:
        for image_id, codes in maps.items():
            writer.write_codes(image_id, codes)
    return path


def rewritten(path, layout="one", compressors=(), endian="little", skip=(), **more):
    """The store with its maps in another layout, by zarr; images whose number is in ``skip`` are not written."""
    group = zarr.open_group(path, mode="r+")
    maps = group["prob"][:]
    del group["prob"]
    images_a_chunk, images_a_shard = LAYOUTS[layout]
    prob = group.create_array(
        "prob",
        shape=maps.shape,
        chunks=(images_a_chunk, *maps.shape[1:]),
        shards=None if images_a_shard is None else (images_a_shard, *maps.shape[1:]),
        dtype=maps.dtype,
        serializer=BytesCodec(endian=endian if maps.dtype.itemsize > 1 else None),
        compressors=list(compressors),
        fill_value=0,
        **more,
    ).with_config({"write_empty_chunks": not skip})
    for number, codes in enumerate(maps):
        if number not in skip:
            prob[number] = codes
    return path


def chunk_of(path, number, layout="one"):
    images_a_chunk, images_a_shard = LAYOUTS[layout]
    return path / "prob" / "c" / str(number // (images_a_shard or images_a_chunk)) / "0" / "0"


def check_equal(path, maps):
    """Every image equals what was written and what zarr reads, alone and into an array of the caller's."""
    store = open_store(path)
    plain = zarr.open_group(path, mode="r")["prob"]
    for number, (image_id, codes) in enumerate(maps.items()):
        height, width = codes.shape
        whole = plain[number]
        np.testing.assert_array_equal(store.read(image_id), whole[:height, :width])
        np.testing.assert_array_equal(store.read(image_id), codes)
        assert store.read(image_id).dtype == codes.dtype
        rows = np.full((3, codes.size), 77, codes.dtype)
        store.read_into(image_id, rows[1].reshape(codes.shape))
        np.testing.assert_array_equal(rows[1], codes.ravel())
        assert (rows[::2] == 77).all()
        assert store.damage(image_id) is None
    return store


@pytest.mark.parametrize(("checked", "dtype"), [(False, "uint16"), (True, "uint8")])
@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_zarr_reads_it(tmp_path, layout, compressor, checked, dtype):
    maps = images(7, dtype)
    codecs = COMPRESSORS[compressor] + [Crc32cCodec()] * checked
    store = check_equal(rewritten(written(tmp_path / "s.zarr", maps), layout, codecs), maps)
    ours = layout == "one" and checked and compressor.startswith("zstd")
    assert type(store._reader) is (DirectReader if ours else ZarrReader)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=9),
    dtype=st.sampled_from(["uint8", "uint16"]),
    layout=st.sampled_from(sorted(LAYOUTS)),
    packers=st.sampled_from([*COMPRESSORS.values(), [Crc32cCodec(), ZstdCodec()], [Crc32cCodec(), Crc32cCodec()]]),
    checked=st.booleans(),
    more=st.sampled_from(
        [
            {},
            {"endian": "big"},
            {"chunk_key_encoding": {"name": "v2", "separator": "."}},
            {"chunk_key_encoding": {"name": "default", "separator": "."}},
            {"filters": [TransposeCodec(order=(0, 2, 1))]},
            {"filters": [TransposeCodec(order=(2, 1, 0))], "endian": "big"},
        ]
    ),
    seed=st.integers(0, 100),
)
def test_any_sizes_codecs_and_orders(sizes, dtype, layout, packers, checked, more, seed):
    maps = images(len(sizes), dtype, seed, sizes)
    with TemporaryDirectory() as folder:
        path = written(Path(folder) / "s.zarr", maps)
        check_equal(rewritten(path, layout, packers + [Crc32cCodec()] * checked, **more), maps)


@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("index_codecs", [[BytesCodec()], [BytesCodec(), Crc32cCodec()], [BytesCodec(endian="big")]])
def test_any_shard_index(tmp_path, place, index_codecs):
    maps = images(7, "uint8")
    path = written(tmp_path / "s.zarr", maps)
    group = zarr.open_group(path, mode="r+")
    whole = group["prob"][:]
    del group["prob"]
    sharding = ShardingCodec(
        chunk_shape=(1, *whole.shape[1:]),
        codecs=[BytesCodec(), ZstdCodec()],
        index_codecs=index_codecs,
        index_location=place,
    )
    prob = group.create_array(
        "prob", shape=whole.shape, chunks=(4, *whole.shape[1:]), dtype="uint8", serializer=sharding, compressors=None
    ).with_config({"write_empty_chunks": True})
    for number in (0, 1, 2, 4, 5, 6):  # 1 is all zero, and is written; 3 is not
        prob[number] = whole[number]
    store = open_store(path)
    for number, (image_id, codes) in enumerate(maps.items()):
        if number == 3:
            with pytest.raises(StoreError, match=f"the chunk of {image_id} is gone"):
                store.read(image_id)
        else:
            np.testing.assert_array_equal(store.read(image_id), codes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_chunk_is_an_error_for_each_of_its_images(tmp_path, layout):
    maps = images(7, "uint8")
    path = rewritten(written(tmp_path / "s.zarr", maps), layout, [ZstdCodec(), Crc32cCodec()])
    chunk_of(path, 5, layout).unlink()
    store = open_store(path)
    for number, (image_id, codes) in enumerate(maps.items()):
        if chunk_of(path, number, layout) == chunk_of(path, 5, layout):
            with pytest.raises(StoreError, match=f"the chunk of {image_id} is gone although its map is recorded as"):
                store.read(image_id)
            assert f"chunk of {image_id} is gone" in store.damage(image_id)
        else:
            np.testing.assert_array_equal(store.read(image_id), codes)


@pytest.mark.parametrize("layout", ["one", "sharded", "shard of one"])
def test_a_chunk_that_was_never_written_is_an_error_even_of_a_map_of_zeros(tmp_path, layout):
    maps = images(7, "uint8")
    assert not maps["img_01"].any()
    path = rewritten(written(tmp_path / "s.zarr", maps), layout, [ZstdCodec()], skip=(1, 4))
    assert not zarr.open_group(path, mode="r")["prob"][1].any()  # zarr reads it as the very same zeros
    store = open_store(path)
    for number, (image_id, codes) in enumerate(maps.items()):
        if not codes.any() or number == 4:
            with pytest.raises(StoreError, match=f"the chunk of {image_id} is gone"):
                store.read(image_id)
        else:
            np.testing.assert_array_equal(store.read(image_id), codes)


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "crc32c"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("layout", ["one", "sharded chunks"])
def test_damage_is_an_error_or_does_no_harm(tmp_path, layout, compressor, checked):
    """A flipped bit or a cut: the right codes (the damage was elsewhere), or an error that names the image."""
    maps = images(4, "uint8")
    codecs = COMPRESSORS[compressor] + [Crc32cCodec()] * checked
    path = rewritten(written(tmp_path / "s.zarr", maps), layout, codecs)
    file = chunk_of(path, 2, layout)
    good = file.read_bytes()
    rng = np.random.default_rng(5)
    told = []
    store = open_store(path)
    for bad in [
        *(
            good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :]
            for at, bit in rng.integers(0, (len(good), 8), (12, 2))
        ),
        *(good[:length] for length in (0, 3, 4, 20, len(good) // 2, len(good) - 1)),
        good + b"more",
        good[::-1],
    ]:
        file.write_bytes(bad)
        for image_id, codes in maps.items():
            try:
                found = store.read(image_id)
            except StoreError as error:
                told.append((image_id, str(error)))
            else:
                np.testing.assert_array_equal(found, codes)
    assert len(told) > 8
    assert all(image_id in line and "\n" not in line for image_id, line in told)


def with_checksum(content):
    return content + google_crc32c.value(content).to_bytes(4, "little")


PIXELS = 13 * 21
BOMBS = {
    "zstd": (ZstdCodec(), lambda raw: bytes(numcodecs.zstd.compress(raw, 1))),
    "gzip": (GzipCodec(), gzip.compress),
    "blosc": (BloscCodec(cname="zstd"), lambda raw: bytes(numcodecs.blosc.compress(raw, b"zstd", 5))),
}


@pytest.mark.parametrize("layout", ["one", "shard of one"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_chunk_that_holds_more_than_it_should_is_not_decoded(tmp_path, name, layout, monkeypatch):
    codec, pack = BOMBS[name]
    maps = images(3, "uint8", sizes=[(13, 21)] * 3)
    path = rewritten(written(tmp_path / "s.zarr", maps), layout, [codec, Crc32cCodec()])
    content = with_checksum(pack(bytes(PIXELS * 1000)))
    if layout == "shard of one":
        content = with_index(content)
    chunk_of(path, 1).write_bytes(content)
    store = open_store(path)
    store.require_complete()
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda *_: pytest.fail("zarr was asked to decode it"))
    with pytest.raises(StoreError, match="the chunk of img_01 does not decode"):
        store.read("img_01")


def with_index(content):
    index = np.array([0, len(content)], "<u8").tobytes()
    return content + with_checksum(index)


def test_the_shard_of_the_test_above_is_a_shard(tmp_path):
    maps = images(3, "uint8", sizes=[(13, 21)] * 3)
    path = rewritten(written(tmp_path / "s.zarr", maps), "shard of one", [GzipCodec(), Crc32cCodec()])
    chunk_of(path, 1).write_bytes(with_index(with_checksum(gzip.compress(maps["img_01"].tobytes()))))
    np.testing.assert_array_equal(open_store(path).read("img_01"), maps["img_01"])


@pytest.mark.parametrize("codecs", [[ZstdCodec(), Crc32cCodec()], [ZstdCodec()]], ids=["direct", "zarr"])
def test_a_frame_that_does_not_say_what_it_holds_is_refused(tmp_path, codecs):
    maps = images(2, "uint8", sizes=[(13, 21)] * 2)
    path = rewritten(written(tmp_path / "s.zarr", maps), "one", codecs)
    # RFC 8878: magic number, a descriptor without size, a window, one last raw block
    frame = b"\x28\xb5\x2f\xfd\x00\x38" + (PIXELS << 3 | 1).to_bytes(3, "little") + maps["img_00"].tobytes()
    assert bytes(numcodecs.zstd.decompress(frame)) == maps["img_00"].tobytes()
    chunk_of(path, 0).write_bytes(with_checksum(frame) if len(codecs) == 2 else frame)
    with pytest.raises(StoreError, match="the chunk of img_00 does not decode"):
        open_store(path).read("img_00")


@pytest.mark.parametrize("codecs", [[ZstdCodec(), Crc32cCodec()], []], ids=["direct", "zarr"])
def test_a_file_longer_than_any_chunk_is_not_read_to_its_end(tmp_path, codecs):
    path = rewritten(written(tmp_path / "s.zarr", images(2, "uint8")), "one", codecs)
    with open(chunk_of(path, 0), "r+b") as file:
        file.truncate(1 << 40)  # takes no place on the disk, but would in memory
    with pytest.raises(StoreError, match=r"img_00 does not decode \(longer than any"):
        open_store(path).read("img_00")


def test_a_chunk_that_cannot_be_opened_is_named(tmp_path):
    path = written(tmp_path / "s.zarr", images(2, "uint8"))
    chunk_of(path, 1).unlink()
    chunk_of(path, 1).mkdir()
    with pytest.raises(StoreError, match=r"img_01 cannot be read: Is a directory$"):
        open_store(path).read("img_01")


def compressed_index():
    """A layout of older zarr, which newer ones neither write nor read."""
    try:
        sharding = ShardingCodec(
            chunk_shape=(1, 13, 21), codecs=[BytesCodec()], index_codecs=[BytesCodec(), GzipCodec()]
        )
    except ValueError:
        return []
    layout = {"chunks": (2, 13, 21), "serializer": sharding, "compressors": None}
    return [(layout, "codecs sharding_indexed, expected")]


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ({"chunks": (1, 5, 21)}, "whole images a chunk"),
        ({"chunks": (1, 13, 7), "shards": (2, 13, 21)}, "whole images a chunk"),
        ({"chunks": (1, 26, 21)}, "whole images a chunk"),
        ({"chunks": (1, 13, 21), "compressors": [ZstdCodec(), GzipCodec()]}, "codecs bytes, zstd, gzip, expected"),
        ({"chunks": (1 << 22, 13, 21)}, "one or a few whole images"),
        *compressed_index(),
        (
            {
                "chunks": (4, 13, 21),
                "serializer": ShardingCodec(
                    chunk_shape=(2, 13, 21),
                    codecs=[ShardingCodec(chunk_shape=(1, 13, 21), codecs=[BytesCodec()])],
                ),
                "compressors": None,
            },
            "codecs sharding_indexed, expected",
        ),
    ],
)
def test_layouts_that_are_refused(tmp_path, layout, told):
    path = written(tmp_path / "s.zarr", images(2, "uint8", sizes=[(13, 21)] * 2))
    group = zarr.open_group(path, mode="r+")
    del group["prob"]
    group.create_array("prob", shape=(2, 13, 21), dtype="uint8", **layout)
    with pytest.raises(StoreError, match=told) as caught:
        open_store(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_into(tmp_path):
    store = open_store(written(tmp_path / "s.zarr", images(2, "uint8", sizes=[(13, 21), (5, 4)])))
    for out in (
        np.empty((21, 13), np.uint8),
        np.empty((13, 21), np.uint16),
        np.empty(13 * 21, np.uint8),
        np.empty((13, 42), np.uint8)[:, ::2],
        np.empty((21, 13), np.uint8).T,
    ):
        with pytest.raises(UsageError, match=r"img_00 cannot be read into .*: give a C-contiguous uint8 \(13, 21\)"):
            store.read_into("img_00", out)
    with pytest.raises(StoreError, match="no image 'img_9'"):
        store.read_into("img_9", np.empty((13, 21), np.uint8))


@pytest.mark.parametrize("codecs", [[ZstdCodec(), Crc32cCodec()], [GzipCodec()]], ids=["direct", "zarr"])
def test_threads_do_not_disturb_each_other(tmp_path, codecs):
    maps = images(12, "uint16")
    store = open_store(rewritten(written(tmp_path / "s.zarr", maps), "one", codecs))
    start = threading.Barrier(4)

    def work(seed):
        start.wait(30)
        order = np.random.default_rng(seed).integers(0, len(maps), 60)
        return all(np.array_equal(store.read(f"img_{number:02d}"), maps[f"img_{number:02d}"]) for number in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_chunks_that_we_write_are_those_that_zarr_writes(tmp_path, dtype):
    from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

    from carvana_ens.store.chunks import chunk_of

    rng = np.random.default_rng(1)
    for number, codes in enumerate(
        [
            np.zeros((7, 9), dtype),
            rng.integers(0, 255, (7, 9)).astype(dtype),
            rng.integers(0, 9, (700, 900)).astype(dtype),
            rng.integers(0, 9, (70, 50)).astype(dtype).T,
        ]
    ):
        array = zarr.create_array(
            tmp_path / f"{number}.zarr",
            shape=(1, *codes.shape),
            chunks=(1, *codes.shape),
            dtype=dtype,
            serializer=BytesCodec(endian="little" if dtype == "uint16" else None),
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},
        )
        array[0] = codes
        assert (tmp_path / f"{number}.zarr" / "c" / "0" / "0" / "0").read_bytes() == chunk_of(codes)
