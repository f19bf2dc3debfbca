from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr

from carvana_ens.errors import StoreError
from carvana_ens.store.hand import quantise
from carvana_ens.store.schema import Provenance
from carvana_ens.store.store import open_store
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Size

IDS = ("a_01", "a_02", "b_01", "007")
SIZES = (Size(30, 41), Size(30, 41), Size(25, 40), Size(1, 1))


def test_reads_back_what_was_written(stored, codes):
    store = open_store(stored)
    assert store.ids == IDS
    assert store.sizes == SIZES
    assert store.shape == (4, 30, 41)
    assert store.missing() == []
    for image_id in IDS:
        np.testing.assert_array_equal(store.read(image_id), codes[image_id])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_reading_equals_zarrs_own(tmp_path, provenance, dtype):
    rng = np.random.default_rng(1)
    high = 256 if dtype == "uint8" else 65536
    with StoreWriter(tmp_path / "s.zarr", IDS, SIZES, provenance, dtype) as writer:
        for image_id, size in zip(IDS, SIZES, strict=True):
            writer.write_codes(image_id, rng.integers(0, high, size, dtype=dtype))
    store = open_store(tmp_path / "s.zarr")
    plain = zarr.open_group(tmp_path / "s.zarr", mode="r")
    for number, (image_id, size) in enumerate(zip(IDS, SIZES, strict=True)):
        whole = plain["prob"][number]
        np.testing.assert_array_equal(store.read(image_id), whole[: size.height, : size.width])
        assert not whole[size.height :].any()
        assert not whole[:, size.width :].any()
        record = int(plain["done"][number])
        little = np.ascontiguousarray(whole[: size.height, : size.width]).astype(f"<u{np.dtype(dtype).itemsize}")
        assert record == 2**32 | zlib.crc32(little.tobytes())
    assert list(plain["ids"][:]) == list(IDS)


def test_all_zero_map_leaves_a_chunk(stored):
    assert (stored / "prob/c/1/0/0").is_file()


def test_missing_map_and_missing_chunk_are_errors(tmp_path, provenance, stored, codes):
    half = tmp_path / "half.zarr"
    with StoreWriter(half, IDS, SIZES, provenance) as writer:
        writer.write_codes("a_01", codes["a_01"])
        assert writer.missing() == list(IDS[1:])
    store = open_store(half)
    assert store.missing() == list(IDS[1:])
    with pytest.raises(StoreError, match=r"lacks 3 of 4 maps, first a_02"):
        store.require_complete()
    with pytest.raises(StoreError, match="no map of a_02 yet"):
        store.read("a_02")
    (stored / "prob/c/1/0/0").unlink()
    with pytest.raises(StoreError, match="chunk of a_02 is gone"):
        open_store(stored).read("a_02")
    with pytest.raises(StoreError, match="no image 'zz'"):
        open_store(stored).read("zz")


def test_every_flipped_bit_is_found(stored, codes):
    chunk = stored / "prob/c/2/0/0"
    good = chunk.read_bytes()
    rng = np.random.default_rng(2)
    for position in rng.integers(0, 8 * len(good), 60):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << (position % 8)
        chunk.write_bytes(bad)
        with pytest.raises(StoreError, match="b_01 is damaged"):
            open_store(stored).read("b_01")
    for length in (0, 3, 4, len(good) // 2, len(good) - 1):
        chunk.write_bytes(good[:length])
        with pytest.raises(StoreError, match="b_01"):
            open_store(stored).read("b_01")


def test_chunk_of_another_image_is_found_by_damage(stored):
    shutil.copy(stored / "prob/c/0/0/0", stored / "prob/c/2/0/0")
    store = open_store(stored)
    assert store.damage("a_01") is None
    assert "b_01 differs from its done record" in store.damage("b_01")


@pytest.mark.parametrize("pixels", [30 * 41 * 1000, 30 * 41 + 1, 30 * 41 - 1, 10])
def test_chunk_that_decodes_to_another_length_is_refused(stored, pixels):
    import google_crc32c
    import numcodecs.zstd

    content = bytes(numcodecs.zstd.compress(bytes(pixels), 1))
    (stored / "prob/c/0/0/0").write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))
    with pytest.raises(StoreError, match="a_01 does not decode"):
        open_store(stored).read("a_01")


def test_continuing_checks_where_the_maps_come_from(stored, provenance):
    with StoreWriter(stored, IDS, SIZES, provenance) as writer:
        assert writer.missing() == []
    other = Provenance(member={"name": "m", "model": "y"}, split="test", seen="none")
    with pytest.raises(StoreError, match="another member model"), StoreWriter(stored, IDS, SIZES, other):
        pass
    with pytest.raises(StoreError, match="other images"), StoreWriter(stored, IDS[:2], SIZES[:2], provenance):
        pass
    with pytest.raises(StoreError, match="dtype"), StoreWriter(stored, IDS, SIZES, provenance, "uint16"):
        pass


def test_two_writers_are_kept_apart(stored, provenance):
    program = (
        "import sys\n"
        "from carvana_ens.store.lock import WriterLock\n"
        "from pathlib import Path\n"
        "with WriterLock(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(stored)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"written by process {other.pid} on"):
            StoreWriter(stored, IDS, SIZES, provenance).__enter__()
        open_store(stored).read("a_01")  # readers do not wait
    finally:
        other.kill()
        other.communicate()
    with StoreWriter(stored, IDS, SIZES, provenance):  # a killed writer leaves no lock behind
        pass


def test_fingerprint_changes_with_a_map_and_with_provenance(tmp_path, stored, provenance, codes):
    first = open_store(stored).fingerprint()
    assert open_store(stored).fingerprint() == first
    with StoreWriter(stored, IDS, SIZES, provenance) as writer:
        writer.write_codes("007", 255 - codes["007"])
    assert open_store(stored).fingerprint() != first


def test_quantise_is_half_to_even_in_float32():
    values = np.array([[0, 1, 0.5, 1 / 255, 0.1, 0.9]], np.float32)
    expected = [[round(float(np.float32(v) * np.float32(255))) for v in values[0]]]  # Python rounds half to even
    assert quantise(values, "uint8").tolist() == expected
    assert expected[0][2] == 128
    assert quantise(values, "uint16")[0, 1] == 65535


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.001, 1.001])
def test_maps_outside_the_unit_range_are_refused_with_their_id(tmp_path, provenance, bad):
    with StoreWriter(tmp_path / "s.zarr", IDS, SIZES, provenance) as writer:
        values = np.full((30, 41), 0.5, np.float32)
        values[3, 4] = bad
        with pytest.raises(StoreError, match=r"image a_01: .* must lie in \[0, 1\]"):
            writer.write("a_01", values)
        assert writer.missing() == list(IDS)
        with pytest.raises(StoreError, match="expected uint8 30x41"):
            writer.write("a_01", np.zeros((41, 30), np.float32))


def test_what_is_no_store_of_ours_is_refused(tmp_path, stored):
    with pytest.raises(StoreError, match="no probability store"):
        open_store(tmp_path / "nothing")
    zarr.create_group(tmp_path / "plain.zarr", zarr_format=3)
    with pytest.raises(StoreError, match="no probability store"):
        open_store(tmp_path / "plain.zarr")
    (tmp_path / "plain.zarr/zarr.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(tmp_path / "plain.zarr")


def _edit(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def of_the_first_schema(document):
    """Turns a store's attributes into those that were written before they had a checksum."""
    ours = document["attributes"]["carvana_ens"]
    ours["schema"] = 1
    ours.pop("sha256")
    return ours


def test_a_store_of_the_first_schema_is_read_and_continued(stored, provenance, codes):
    _edit(stored / "zarr.json", of_the_first_schema)
    store = open_store(stored)
    assert all(np.array_equal(store.read(i), values) for i, values in codes.items())
    with StoreWriter(stored, store.ids, store.sizes, provenance) as writer:
        assert writer.missing() == []


@pytest.mark.parametrize(
    ("file", "change", "match"),
    [
        ("prob/zarr.json", lambda d: d.update(shape=[4, 10**8, 10**8]), "chunks|more than a store"),
        ("prob/zarr.json", lambda d: d["codecs"].append({"name": "gzip", "configuration": {"level": 1}}), "codecs"),
        ("prob/zarr.json", lambda d: d.update(data_type="float32", fill_value=0.0), "expected uint8 or uint16|endian"),
        ("done/zarr.json", lambda d: d.update(shape=[5]), "done"),
        ("zarr.json", lambda d: d["attributes"]["carvana_ens"].update(schema=9), "schema 9"),
        ("zarr.json", lambda d: d["attributes"]["carvana_ens"].update(ids_sha256="0"), "was changed"),
        ("zarr.json", lambda d: d["attributes"]["carvana_ens"]["provenance"].update(split="oof"), "was changed"),
        ("zarr.json", lambda d: d["attributes"]["carvana_ens"].pop("sha256"), "lacks attributes of schema 2"),
        ("zarr.json", lambda d: of_the_first_schema(d).update(ids_sha256="0"), "ids do not match"),
        ("zarr.json", lambda d: of_the_first_schema(d)["provenance"].pop("seen"), "provenance"),
    ],
)
def test_hostile_or_foreign_metadata_is_refused_in_one_line(stored, file, change, match):
    _edit(stored / file, change)
    with pytest.raises(StoreError, match=match) as caught:
        open_store(stored)
    assert "\n" not in str(caught.value)


def test_a_stop_while_creating_leaves_nothing(tmp_path, provenance, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("carvana_ens.store.writer.ZstdCodec", stop)
    with pytest.raises(KeyboardInterrupt):
        StoreWriter(tmp_path / "s.zarr", IDS, SIZES, provenance).__enter__()
    assert [p.name for p in tmp_path.iterdir() if ".partial" in p.name or p.name == "s.zarr"] == []
    monkeypatch.undo()
    with StoreWriter(tmp_path / "s.zarr", IDS, SIZES, provenance):
        pass


def test_a_pending_checkpoint_may_become_known_but_no_other_may_change(tmp_path, codes):
    def provenance(**checkpoints):
        return Provenance(member={"name": "m"}, split="oof", seen="fold table", checkpoints=checkpoints)

    path = tmp_path / "s.zarr"
    with StoreWriter(path, IDS, SIZES, provenance(a="1", b="pending")) as writer:
        writer.write_codes("a_01", codes["a_01"])
    with pytest.raises(StoreError, match="checkpoints"), StoreWriter(path, IDS, SIZES, provenance(a="2", b="pending")):
        pass
    with StoreWriter(path, IDS, SIZES, provenance(a="1", b="2")) as writer:
        assert writer.missing() == list(IDS[1:])
    assert open_store(path).provenance.checkpoints == {"a": "1", "b": "2"}
    with pytest.raises(StoreError, match="checkpoints"), StoreWriter(path, IDS, SIZES, provenance(a="1", b="3")):
        pass
