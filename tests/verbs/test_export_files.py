"""export as pictures, numpy files and HDF5: read by Pillow, numpy and h5py themselves, and by import."""

from __future__ import annotations

import h5py
import numpy as np
import PIL.Image
import pytest

from carvana_ens import open_store

FORMS = {"png": "maps", "npy": "maps", "npz": "maps.npz", "hdf5": "maps.h5"}


@pytest.fixture(params=["uint8", "uint16"])
def one(project, request):
    """A project with a member of random codes."""

    def make():
        (project.root / "given").mkdir()
        rng, codes = np.random.default_rng(3), {}
        for image_id in ("b22_01", "b22_02", "b22_03", "c9d_01", "c9d_02", "c9d_03"):
            codes[image_id] = rng.integers(0, np.iinfo(request.param).max, (48, 71), request.param, endpoint=True)
            np.save(project.root / "given" / f"{image_id}.npy", codes[image_id])
        project.did("import", "one", "--from", project.root / "given", "--split", "test")
        return codes

    project.codes = project.kept(f"export-{request.param}", make)
    return project


def read(form, path):
    """Maps by id."""
    if form == "png":
        return {p.stem: np.array(PIL.Image.open(p)) for p in path.iterdir()}
    if form == "npy":
        return {p.stem: np.load(p) for p in path.iterdir()}
    if form == "npz":
        with np.load(path) as archive:
            return dict(zip(archive["ids"].tolist(), archive["maps"], strict=True))
    with h5py.File(path) as file:
        assert file["maps"].attrs["full_scale"] == np.iinfo(file["maps"].dtype).max
        return dict(zip(file["ids"].asstr()[()].tolist(), file["maps"][()], strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [True, False])
def test_there_and_back(one, form, packed):
    if packed:
        one.did("pack", "--split", "test")
    path = one.root / "out" / FORMS[form]
    done = one.did("export", "one", "--to", form, "-o", path, "--threads", "2")
    assert done.out == f"{path}: 6 maps written, 6 in all\n"
    found = read(form, path)
    assert sorted(found) == sorted(one.codes)
    for image_id, codes in one.codes.items():
        assert found[image_id].dtype == codes.dtype
        assert np.array_equal(found[image_id], codes)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    one.did("import", "back", "--from", path, "--split", "test")
    assert np.array_equal(open_store(one.store("back", "test")).records, open_store(one.store("one", "test")).records)


@pytest.mark.parametrize("form", FORMS)
def test_a_stop_leaves_nothing_and_what_is_there_stays(one, monkeypatch, form):
    from carvana_ens.store.store import ProbabilityStore

    path, plain = one.root / "out" / FORMS[form], ProbabilityStore.read

    def stopping(self, image_id):
        if image_id == "c9d_01":
            raise KeyboardInterrupt
        return plain(self, image_id)

    monkeypatch.setattr(ProbabilityStore, "read", stopping)
    assert one.do("export", "one", "--to", form, "-o", path, "--threads", "1").code == 130
    assert list(path.parent.iterdir()) == []
    monkeypatch.setattr(ProbabilityStore, "read", plain)
    path.write_text("mine")
    assert f"{path} is there already" in one.do("export", "one", "--to", form, "-o", path).error
    assert path.read_text() == "mine"


@pytest.mark.parametrize("form", ["npz", "hdf5"])
def test_the_same_maps_give_the_same_file(one, form):
    a, b = (one.root / name / FORMS[form] for name in "ab")
    for path in (a, b):
        one.did("export", "one", "--to", form, "-o", path)
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_photos_of_several_sizes(world, oracle, form):
    world.run("init", world.cars)
    rng = np.random.default_rng(0)
    codes = {"small": rng.integers(0, 256, (5, 9), np.uint8), "large": rng.integers(0, 256, (20, 7), np.uint8)}
    for image_id, values in codes.items():
        oracle.save_grey(world.root / "given" / f"{image_id}.png", values)
    world.did("import", "one", "--from", world.root / "given", "--split", "test")
    path = world.root / "out" / FORMS[form]
    done = world.do("export", "one", "--to", form, "-o", path)
    if form in ("npz", "hdf5"):
        assert "5x9" in done.error
        assert "20x7" in done.error
        assert not path.exists()
    else:
        assert all(np.array_equal(values, codes[image_id]) for image_id, values in read(form, path).items())
