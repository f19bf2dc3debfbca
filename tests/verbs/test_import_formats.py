"""import: the same maps in every format that it reads, written by numpy, Pillow, tifffile, h5py and zarr themselves."""

from __future__ import annotations

import io

import h5py
import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from carvana_ens import open_store
from carvana_ens.core.rle_dialects import DIALECTS

RNG = np.random.default_rng(5)


@pytest.fixture
def given(project, oracle):
    """The project; probabilities in float32 of every test photo by id."""
    project.values = {image_id: RNG.random(oracle.SIZE, np.float32) for image_id in oracle.TEST}
    some = project.values[oracle.TEST[0]]
    # halves between two codes, and the ends
    some[0, :6] = np.array([0.5, 1.5, 2.5, 253.5, 0, 255], np.float32) / np.float32(255)
    project.place = project.root / "given"
    return project


def rounded(values, scale=255):
    return np.rint(values.astype(np.float32) * np.float32(scale)).astype(np.uint8 if scale == 255 else np.uint16)


def bring(world, *words, place=None):
    return world.do("import", "net", "--from", place or world.place, "--split", "test", *words)


def check(world, *words, place=None, dtype="uint8", expected=None):
    done = bring(world, *words, place=place)
    assert (done.code, done.err) == (0, ""), done
    assert "6 maps imported, 6 in all" in done.out
    store = open_store(world.store("net", "test"))
    assert store.dtype == dtype
    assert store.ids == tuple(sorted(world.values))
    for image_id, values in world.values.items():
        codes = rounded(values, 255 if dtype == "uint8" else 65535) if expected is None else expected(values)
        assert np.array_equal(store.read(image_id), codes)
    assert "0 maps imported, 6 in all" in bring(world, *words, place=place).out


def save_png(place, image_id, codes):
    PIL.Image.fromarray(codes).save(place / f"{image_id}.png")


def save_tiff(place, image_id, codes):
    big = image_id.endswith("2")  # both byte orders
    tifffile.imwrite(
        place / f"{image_id}.tif", codes, byteorder=">" if big else "<", compression="zlib" if big else None
    )


@pytest.mark.parametrize("save", [save_png, save_tiff])
@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 255), ("uint16", 65535)])
def test_pictures(given, save, dtype, scale):
    given.place.mkdir()
    for image_id, values in given.values.items():
        save(given.place, image_id, rounded(values, scale))
    check(given, dtype=dtype)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", np.uint8, np.uint16, np.bool_])
def test_arrays(given, kind):
    given.place.mkdir()
    made = {}
    for image_id, values in given.values.items():
        made[image_id] = {
            "u": lambda v: rounded(v, np.iinfo(kind).max),
            "b": lambda v: v > 0.5,
            "f": lambda v: v.astype(kind),
        }[np.dtype(kind).kind](values)
        if image_id.endswith("1"):
            np.savez_compressed(given.place / f"{image_id}.npz", anything=made[image_id])
        else:
            np.save(given.place / f"{image_id}.npy", made[image_id])
    (given.place / "notes.txt").write_text("mine")
    given.values = made
    if kind is np.bool_:
        check(given, expected=lambda v: v.astype(np.uint8) * 255)
    elif np.dtype(kind).kind == "u":
        check(given, dtype=np.dtype(kind).name, expected=lambda v: v)
    else:
        check(given)


def test_probabilities_in_sixteen_bits(given):
    given.place.mkdir()
    for image_id, values in given.values.items():
        np.save(given.place / f"{image_id}.npy", values)
    check(given, "--dtype", "uint16", dtype="uint16")


@pytest.mark.parametrize("depth", [True, False])
@pytest.mark.parametrize("key", ["probabilities", "softmax"])
def test_nnunet(given, key, depth):
    """(C, 1, H, W) of a picture, as nnU-Net writes beside its .pkl; the object is the last channel."""
    given.place.mkdir()
    for image_id, values in given.values.items():
        channels = np.stack([1 - values, values])
        np.savez_compressed(given.place / f"{image_id}.npz", **{key: channels[:, None] if depth else channels})
        (given.place / f"{image_id}.pkl").write_bytes(b"never read")
    check(given)
    given.values = {image_id: np.float32(1) - values for image_id, values in given.values.items()}
    assert "--fresh" in bring(given, "--channel", "0").error  # other values than those of the first import
    given.did("import", "net", "--from", given.place, "--split", "test", "--channel", "0", "--fresh")
    store = open_store(given.store("net", "test"))
    assert all(np.array_equal(store.read(image_id), rounded(values)) for image_id, values in given.values.items())


def mixed(values):
    """Ids in an order that is not sorted, and their maps."""
    ids = sorted(values, reverse=True)
    return ids, np.stack([values[image_id] for image_id in ids])


@pytest.mark.parametrize("how", ["npy", "npz", "compressed", "channels"])
def test_stacks(given, how):
    ids, maps = mixed(given.values)
    names, words, place = given.root / "names.txt", [], given.root / "all.npz"
    names.write_text("\n".join(ids) + "\n")
    if how == "npy":
        place = given.root / "all.npy"
        np.save(place, maps)
        assert "--ids" in bring(given, place=place).error
        words = ["--ids", names]
    elif how == "npz":
        np.savez(place, maps=maps, ids=np.array(ids))
    elif how == "compressed":
        np.savez_compressed(place, maps=maps, other=maps[:1])
        assert "--key" in bring(given, "--ids", names, place=place).error
        words = ["--ids", names, "--key", "maps"]
    else:
        np.savez(place, maps=np.stack([1 - maps, maps], axis=1), ids=np.array(ids))
        assert "--channel" in bring(given, place=place).error
        words = ["--channel", "1"]
    check(given, *words, place=place)


@pytest.mark.parametrize("how", ["stack", "key", "named", "group"])
def test_hdf5(given, how):
    ids, maps = mixed(given.values)
    place, words = given.root / "all.h5", []
    with h5py.File(place, "w") as file:
        if how in ("stack", "key"):
            file.create_dataset("maps", data=maps, chunks=(1, *maps.shape[1:]), compression="gzip")
            file.create_dataset("ids", data=ids, dtype=h5py.string_dtype())
        if how == "key":
            file["more"] = maps[:2]
            words = ["--key", "maps"]
        if how in ("named", "group"):
            home = file if how == "named" else file.create_group("test/net")
            for image_id, values in zip(ids, maps, strict=True):
                home[image_id] = values
            words = ["--key", "test/net"] if how == "group" else []
    check(given, *words, place=place)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_zarr(given, version, whole):
    ids, maps = mixed(given.values)
    group = zarr.open_group(given.place, mode="w", zarr_format=version)
    chunks = (1, *maps.shape[1:]) if whole else (4, 20, 30)
    group.create_array("maps", data=maps, chunks=chunks)
    names = group.create_array("ids", shape=len(ids), dtype="U8" if version == 2 else "str")
    names[:] = np.array(ids, dtype=object if version == 3 else "U8")
    check(given)


def test_zarr_without_a_chunk_is_refused(given):
    """zarr itself reads zeros there, and says nothing."""
    ids, maps = mixed(given.values)
    group = zarr.open_group(given.place, mode="w", zarr_format=3)
    array = group.create_array("maps", data=maps, chunks=(1, *maps.shape[1:]))
    (given.root / "names.txt").write_text("\n".join(ids))
    lost = given.place / "maps" / array.metadata.encode_chunk_key((2, 0, 0))
    kept = lost.read_bytes()
    lost.unlink()
    words = ("--ids", given.root / "names.txt", "--threads", "1")
    assert ids[2] in bring(given, *words).error
    lost.write_bytes(kept)
    assert "in all" in bring(given, *words).out


def test_a_store_of_another_project(given):
    given.place.mkdir()
    for image_id, values in given.values.items():
        np.save(given.place / f"{image_id}.npy", values)
    check(given)
    given.did("pack")
    given.did("import", "again", "--from", given.store("net", "test"), "--split", "test")
    old, new = open_store(given.store("net", "test")), open_store(given.store("again", "test"))
    assert np.array_equal(old.records, new.records)
    assert "--key" in bring(given, "--key", "prob", "--fresh", place=given.store("net", "test")).error


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_submissions(given, dialect):
    place = given.root / "votes.csv"
    masks = {image_id: values > 0.5 for image_id, values in given.values.items()}
    rows = [f"{image_id}.jpg,{DIALECTS[dialect].encode(mask)}\n" for image_id, mask in masks.items()]
    place.write_text("".join(["img,rle_mask\n", *rows]))
    given.values = masks
    words = [] if dialect == "carvana" else ["--dialect", dialect]
    check(given, *words, place=place, expected=lambda mask: mask.astype(np.uint8) * 255)


def test_a_submission_without_photos_needs_a_size(world, oracle):
    world.run("init", world.cars)
    (world.root / "votes.csv").write_text("img,rle_mask\na.jpg,1 3\nb.jpg,\n")
    assert "--size" in bring(world, place=world.root / "votes.csv").error
    assert "2 maps imported" in bring(world, "--size", "3x4", place=world.root / "votes.csv").out
    assert open_store(world.store("net", "test")).read("a").tolist() == [[255, 255, 255, 0], [0] * 4, [0] * 4]


BAD = {
    "nan": (lambda v: np.where(v == v[3, 3], np.nan, v), "nan"),
    "over": (lambda v: v.astype(np.float64) + (v == v.max()) * 1.0, "[0, 1]"),
    "barely over": (lambda v: np.where(v == v.max(), 1 + 1e-9, v.astype(np.float64)), "[0, 1]"),
    "under": (lambda v: v - 0.5, "[0, 1]"),
    "whole numbers": (lambda v: (v * 255).astype(np.int64), "int64"),
    "codes among floats": (rounded, "uint8"),
    "another size": (lambda v: v[:-1], "47x71"),
    "turned": (lambda v: v.T.copy(), "71x48"),
    "Fortran": (np.asfortranarray, "Fortran"),
    "two channels": (lambda v: np.stack([v, v]), "--channel"),
    "one row": (lambda v: v[0], "shape"),
    "objects": (lambda v: v.astype(object), "objects"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_map_is_named(given, kind):
    given.place.mkdir()
    for image_id, values in given.values.items():
        np.save(given.place / f"{image_id}.npy", BAD[kind][0](values) if image_id == "b22_03" else values)
    done = bring(given)
    assert "b22_03" in done.error
    assert BAD[kind][1] in done.error
    assert done.code == 1


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
@pytest.mark.parametrize("kind", ["cut", "empty", "other"])
def test_damaged_files_are_named(given, name, kind):
    place, (ids, maps) = given.root / name, mixed(given.values)
    buffer = io.BytesIO()
    if name == "a.h5":
        with h5py.File(place, "w") as file:
            file["maps"], file["ids"] = maps, ids
        content = place.read_bytes()
    else:
        np.save(buffer, maps) if name == "a.npy" else np.savez(buffer, maps=maps, ids=ids)
        content = buffer.getvalue()
    place.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "other": b"nothing of the kind"}[kind])
    (given.root / "names.txt").write_text("\n".join(ids))
    words = ("--ids", given.root / "names.txt")
    done = bring(given, *words, place=place)
    assert str(place) in done.error
    assert done.code == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--key", "a"], "--key means nothing"),
        (["--dialect", "relative"], "--dialect means nothing"),
        (["--dtype", "uint16"], "--dtype"),
        (["--size", "3x4"], "--size"),
        (["--format", "hdf5"], "HDF5"),
        (["--format", "stack"], "cannot be read"),
        (["--format", "zarr"], "zarr"),
        (["--format", "npy"], "'npy'"),
    ],
)
def test_what_cannot_be_meant(given, oracle, words, told):
    given.place.mkdir()
    for image_id, values in given.values.items():
        save_png(given.place, image_id, rounded(values))
    assert told in bring(given, *words).error
    assert not given.store("net", "test").exists()


def test_pictures_beside_arrays_are_not_guessed(given):
    given.place.mkdir()
    for image_id, values in given.values.items():
        save_png(given.place, image_id, rounded(values))
        np.save(given.place / f"{image_id}.npy", 1 - values)
    assert "--format" in bring(given).error
    check(given, "--format", "pictures")


@pytest.mark.parametrize(
    ("ids", "told"),
    [(lambda i: i[:-1], "5 ids"), (lambda i: [*i[:-1], i[0]], "twice"), (lambda i: [*i[:-1], ""], "empty")],
)
def test_ids_that_are_not_those_of_the_maps(given, ids, told):
    names, maps = mixed(given.values)
    (given.root / "names.txt").write_text("\n".join(ids(names)) + "\n")
    np.save(given.root / "all.npy", maps)
    assert told in bring(given, "--ids", given.root / "names.txt", place=given.root / "all.npy").error


def test_without_h5py_there_is_one_line(given, monkeypatch):
    with h5py.File(given.root / "a.h5", "w") as file:
        file["maps"] = np.zeros((1, 2, 2))
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'carvana-ens[hdf5]'" in bring(given, place=given.root / "a.h5").error


def test_a_stopped_import_of_a_stack_reads_only_what_is_missing(given, monkeypatch):
    from carvana_ens.store.hand import StoreHand

    ids, maps = mixed(given.values)
    np.savez_compressed(given.root / "all.npz", maps=maps, ids=ids)
    plain = StoreHand.put

    def stopping(self, image_id, codes):
        if image_id == ids[3]:
            raise KeyboardInterrupt
        return plain(self, image_id, codes)

    monkeypatch.setattr(StoreHand, "put", stopping)
    assert bring(given, "--threads", "1", place=given.root / "all.npz").code == 130
    assert open_store(given.store("net", "test")).missing() == sorted(ids[3:])
    monkeypatch.setattr(StoreHand, "put", plain)
    assert "3 maps imported, 6 in all" in bring(given, place=given.root / "all.npz").out
    store = open_store(given.store("net", "test"))
    assert all(np.array_equal(store.read(i), rounded(values)) for i, values in given.values.items())
