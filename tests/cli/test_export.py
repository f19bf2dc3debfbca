"""carvana-ens export on the command line."""

from __future__ import annotations

import pytest


@pytest.fixture
def one(project):
    """A project with an imported member."""
    project.kept("exported", lambda: project.imported(("one", 2, 1, 4)))
    return project


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["one"], "--to"),
        (["one", "--to", "zarr"], "'-o'"),
        (["--to", "zarr", "-o", "x.zarr"], "MEMBER"),
        (["one", "--to", "jpg", "-o", "x"], "'jpg'"),
        (["one", "--to", "npz", "-o", "x.npy"], ".npz"),
        (["one", "--to", "hdf5", "-o", "x"], ".h5"),
        (["one", "--to", "png", "-o", "maps.txt"], "maps.txt"),
        (["one", "--to", "zarr", "-o", "maps.txt"], "maps.txt"),
        (["one", "two", "--to", "zarr", "-o", "x.zarr"], "two"),
        (["one", "--to", "zarr", "-o", "x.zarr", "--threads", "0"], "--threads"),
    ],
)
def test_what_cannot_be_meant(one, monkeypatch, words, told):
    monkeypatch.chdir(one.root)
    (one.root / "maps.txt").write_text("a file")
    done = one.do("export", *words)
    assert told in done.error
    assert done.code == 2
    assert not (one.root / "x.zarr").exists()


def test_the_target_is_where_the_user_is(one, monkeypatch):
    monkeypatch.chdir(one.root)
    assert one.did("export", "one", "--to", "zarr", "-o", "here.zarr").out == "here.zarr: 6 maps written, 6 in all\n"
    assert (one.root / "here.zarr" / "zarr.json").is_file()
    assert one.did("export", "one", "--split", "oof", "--to", "zarr", "-o", one.root / "new" / "x.zarr").out.endswith(
        "x.zarr: 8 maps written, 8 in all\n"
    )


@pytest.mark.parametrize("place", ["file/x.zarr", "file"])
def test_a_place_that_cannot_be_written(one, place):
    (one.root / "file").write_text("in the way")
    done = one.do("export", "one", "--to", "zarr", "-o", one.root / place)
    assert str(one.root / "file") in done.error
    assert (one.root / "file").read_text() == "in the way"
