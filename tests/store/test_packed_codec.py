"""The codec in zarr's hands: whatever zarr reads of a packed store equals the plain one, in any process."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import carvana_ens
from carvana_ens.store import packing
from carvana_ens.store.packed_codec import CODEC, PackedCodec
from carvana_ens.store.packed_reader import chunk_key
from carvana_ens.store.packing import pack_store
from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

TWINS = runpy.run_path(str(Path(__file__).parents[1] / "core" / "reference.py"))
HERE = Provenance(member={"name": "m"}, split="test", seen="none")
SIZES = [(9, 50), (1, 1), (7, 33), (9, 1), (1, 50), (8, 64), (5, 13)]


def maps_of(sizes, dtype, seed=0):
    """Maps by id, of every kind in turn."""
    found = {}
    for number, size in enumerate(sizes):
        kinds = list(TWINS["sure_kinds"](size, dtype, seed + number).values())
        found[f"img_{number:02d}"] = kinds[(5 * number + seed) % len(kinds)]
    return found


def packed(path, maps, images=3):
    """A packed store of chunks of so many images."""
    dtype = str(next(iter(maps.values())).dtype)
    with StoreWriter(path, tuple(maps), [Size(*codes.shape) for codes in maps.values()], HERE, dtype) as writer:
        for image_id, codes in maps.items():
            writer.write_codes(image_id, codes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "IMAGES", images)
        assert pack_store(path) == len(maps)
    return path


def whole_of(maps):
    """(N, H, W) as zarr has it: zeros outside the true sizes."""
    height, width = (max(codes.shape[axis] for codes in maps.values()) for axis in (0, 1))
    whole = np.zeros((len(maps), height, width), next(iter(maps.values())).dtype)
    for row, codes in zip(whole, maps.values(), strict=True):
        row[: codes.shape[0], : codes.shape[1]] = codes
    return whole


def prob_of(path, mode="r"):
    return zarr.open_group(path, mode=mode)["prob"]


@pytest.mark.parametrize("images", [1, 3, 64])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_zarr_reads_what_the_store_reads(tmp_path, dtype, images):
    maps = maps_of(SIZES, dtype)
    path = packed(tmp_path / "s.zarr", maps, images)
    prob, whole = prob_of(path), whole_of(maps)
    assert (prob.chunks, prob.dtype) == ((images, 9, 64), whole.dtype)
    assert np.array_equal(prob[:], whole)
    assert np.array_equal(prob[...], whole)
    for number, image_id in enumerate(maps):
        assert np.array_equal(prob[number], whole[number])
        assert np.array_equal(prob[number - len(maps)], whole[number])
        assert np.array_equal(open_store(path).read(image_id), maps[image_id])
    for chosen in (
        np.s_[2:6],
        np.s_[::3],
        np.s_[1:, 2:5, 3:60:7],
        np.s_[4, 5],
        np.s_[4, 5, 6],
        np.s_[:, 0, :],
        np.s_[5:5],
        np.s_[0:2, 8:, 63],
    ):
        assert np.array_equal(prob[chosen], whole[chosen]), chosen
    rows, columns = np.array([6, 0, 3]), np.array([1, 8])
    assert np.array_equal(prob.oindex[rows], whole[rows])
    assert np.array_equal(prob.oindex[rows, columns], whole[np.ix_(rows, columns)])
    assert np.array_equal(prob.oindex[rows, 2:7, np.array([0, 63])], whole[rows][:, 2:7][:, :, [0, 63]])
    assert np.array_equal(prob.oindex[np.arange(7) % 2 == 0, :, 5], whole[::2, :, 5])
    points = np.array([6, 0, 0, 3, 6]), np.array([8, 0, 8, 4, 0]), np.array([63, 1, 0, 30, 2])
    assert np.array_equal(prob.vindex[points], whole[points])
    assert np.array_equal(prob.vindex[whole > 100], whole[whole > 100])
    assert np.array_equal(prob.blocks[0], whole[:images])


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 90)), min_size=1, max_size=8),
    dtype=st.sampled_from(["uint8", "uint16"]),
    images=st.integers(1, 9),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_any_sizes_and_slices(sizes, dtype, images, seed, data):
    maps = maps_of(sizes, dtype, seed)
    whole = whole_of(maps)

    def part(length):
        start = data.draw(st.integers(0, length - 1))
        return slice(start, data.draw(st.integers(start + 1, length)), data.draw(st.integers(1, 4)))

    with TemporaryDirectory() as folder:
        path = packed(Path(folder) / "s.zarr", maps, images)
        store, prob = open_store(path), prob_of(path)
        for image_id, codes in maps.items():
            assert np.array_equal(store.read(image_id), codes)
            assert store.damage(image_id) is None
        assert np.array_equal(prob[:], whole)
        for _ in range(4):
            chosen = tuple(part(length) for length in whole.shape)
            assert np.array_equal(prob[chosen], whole[chosen])
        picked = np.array(data.draw(st.lists(st.integers(0, len(maps) - 1), min_size=1, max_size=5, unique=True)))
        rows = part(whole.shape[1])
        assert np.array_equal(prob.oindex[picked, rows], whole[picked, rows])
        assert np.array_equal(prob.vindex[picked, 0 * picked, 0 * picked], whole[picked, 0, 0])


def python(script, *words, **environment):
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(Path(carvana_ens.__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_a_process_that_knows_only_zarr_reads_it(tmp_path):
    """The codec is found by its entry point when the array is opened; nothing of ours is imported before."""
    maps = maps_of(SIZES, "uint8")
    script = """
import hashlib, sys, zarr
assert not [name for name in sys.modules if name.startswith("carvana_ens")]
prob = zarr.open_group(sys.argv[1], mode="r")["prob"]
print(hashlib.sha256(prob[:].tobytes()).hexdigest(), hashlib.sha256(prob[4].tobytes()).hexdigest())
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "pandas", "PIL", "carvana_ens"}))
"""
    whole = whole_of(maps)
    expected = [hashlib.sha256(codes.tobytes()).hexdigest() for codes in (whole, whole[4])]
    assert python(script, packed(tmp_path / "s.zarr", maps)) == [*expected, "carvana_ens"]


@pytest.mark.parametrize("threads", ["1", "3"])
def test_many_chunks_at_once_do_not_wait_for_each_other(tmp_path, threads):
    """Decoding waits for reads: they must not need the same threads, or with enough chunks all wait for ever."""
    maps = maps_of(SIZES * 6, "uint8")
    script = "import sys, zarr; prob = zarr.open_group(sys.argv[1])['prob']; print(prob[:].sum(), prob[:, 2:5].sum())"
    whole = whole_of(maps)
    got = python(script, packed(tmp_path / "s.zarr", maps, 1), ZARR_THREADING__MAX_WORKERS=threads)
    assert got == [str(whole.sum()), str(whole[:, 2:5].sum())]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_reads_it_too(tmp_path):
    """As a loader of training data forks its workers, after the parent has read."""
    maps = maps_of(SIZES, "uint8")
    script = """
import os, signal, sys, zarr
prob = zarr.open_group(sys.argv[1], mode="r")["prob"]
print(prob[:].sum(), flush=True)
child = os.fork()
if child == 0:
    signal.alarm(60)  # one that waits for ever must not stay behind
    print(zarr.open_group(sys.argv[1], mode="r")["prob"][4].sum(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    whole = whole_of(maps)
    assert python(script, packed(tmp_path / "s.zarr", maps)) == [str(whole.sum()), str(whole[4].sum())]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_zarr_writes_with_it_too(tmp_path, dtype):
    """Not how a packed store is made: every image at the size of the array, chunks read, changed and written."""
    whole = whole_of(maps_of(SIZES, dtype))
    prob = zarr.create_array(
        tmp_path / "p.zarr",
        shape=whole.shape,
        chunks=(3, *whole.shape[1:]),
        dtype=dtype,
        serializer=PackedCodec(),
        filters=None,
        compressors=None,
        fill_value=0,
    )
    for number in (6, 0, 1, 4):
        prob[number] = whole[number]
    prob[4, 2:5, 7] = 200
    expected = np.zeros_like(whole)
    expected[[6, 0, 1, 4]] = whole[[6, 0, 1, 4]]
    expected[4, 2:5, 7] = 200
    assert np.array_equal(zarr.open_array(tmp_path / "p.zarr", mode="r")[:], expected)
    prob[:] = whole
    assert np.array_equal(prob[:], whole)
    document = json.loads((tmp_path / "p.zarr" / "zarr.json").read_text())
    assert document["codecs"] == [{"name": CODEC}]
    assert PackedCodec.from_dict(document["codecs"][0]) == PackedCodec()


@pytest.mark.parametrize(("shape", "dtype"), [((2, 5), "uint8"), ((2, 5, 5), "float32"), ((2, 5, 5), "int16")])
def test_arrays_that_hold_no_maps_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=f"{CODEC} holds uint8 or uint16 .images, H, W., got {dtype}"):
        zarr.create_array(
            zarr.storage.MemoryStore(),
            shape=shape,
            chunks=shape,
            dtype=dtype,
            serializer=PackedCodec(),
            filters=None,
            compressors=None,
        )


def test_damage_is_an_error_and_a_chunk_that_is_not_there_is_zeros(tmp_path):
    """The second is zarr's rule, which stores of ours do not follow."""
    maps = maps_of(SIZES, "uint8")
    path, whole = packed(tmp_path / "s.zarr", maps), whole_of(maps)
    file = path / chunk_key(1)
    good = file.read_bytes()
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(good), 40):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.integers(8)]) + good[at + 1 :])
        with pytest.raises(ValueError, match=rf"a chunk of {CODEC} (is damaged|does not decode)"):
            prob_of(path)[:]
        assert np.array_equal(prob_of(path)[:3], whole[:3])
    for length in (0, 20, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(ValueError, match=f"a chunk of {CODEC} is damaged"):
            prob_of(path)[:]
    file.unlink()
    whole[3:6] = 0
    assert np.array_equal(prob_of(path)[:], whole)
