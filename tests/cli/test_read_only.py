"""Folders that may only be read: what needs to write there ends in one line and harms nothing, what reads works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from carvana_ens import open_store


@contextmanager
def read_only(folder):
    """Mounted so for root, who may write anywhere else; by its mode for others."""
    if os.geteuid():
        places = [folder, *folder.rglob("*")]
        modes = [place.stat().st_mode for place in places]
        for place, mode in zip(places, modes, strict=True):
            place.chmod(mode & ~0o222)
        yield
        for place, mode in zip(places, modes, strict=True):
            place.chmod(mode)
        return
    bind = ["mount", "--bind", str(folder), str(folder)]
    may = sys.platform == "linux" and shutil.which("mount")
    if not may or subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("this system does not let us mount a folder for reading only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(world, *words):
    """The line of a command in a process of its own that must fail."""
    process = world.process("--project", world.cars, *words)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (1, ""), (out, err)
    (line,) = [line for line in err.splitlines() if line]
    assert line.startswith("error: ")
    return line


@pytest.fixture
def half(project):
    """A member whose test maps are there, whose out-of-fold maps are not all there: one is missing, one damaged."""
    project.did("add-model", "bright-cut", "--name", "one")
    project.did("predict")
    chunk = project.store("one", "oof") / "prob" / "c" / "3" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-2])
    project.did("verify", "--repair")
    chunk = chunk.parents[2] / "4" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-2])
    return project


@pytest.mark.parametrize("what", ["stores", "project"])
def test_what_writes_is_refused_in_a_line_and_nothing_is_lost(half, what):
    folder = half.cars if what == "project" else half.cars / "stores"
    before = files(half.cars)
    fingerprint = open_store(half.store("one", "test")).fingerprint()
    with read_only(folder):
        for words in (["predict"], ["predict", "--fresh"], ["pack", "--split", "test"], ["verify", "--repair"]):
            line = refused(half, *words)
            assert line.startswith(f"error: {half.cars}")
            assert " cannot be written: " in line
        assert "6 right, 1 missing, 1 damaged" in half.do("verify").out
        half.did("status")
        half.did("blend", "-o", half.root / "elsewhere.csv")
        assert {path: content for path, content in files(half.cars).items() if "runs" not in path.parts} == {
            path: content for path, content in before.items() if "runs" not in path.parts
        }
    half.did("blend", "-o", half.root / "again.csv")
    half.did("verify", "--repair")
    assert (half.root / "elsewhere.csv").read_bytes() == (half.root / "again.csv").read_bytes()
    assert "2 maps predicted, 8 in all" in half.did("predict").out
    assert open_store(half.store("one", "test")).fingerprint() == fingerprint
    assert "8 right, 0 missing, 0 damaged" in half.did("verify").out
    assert "6 maps packed" in half.did("pack").out


def test_results_into_a_folder_that_may_only_be_read(half):
    half.did("verify", "--repair")
    half.did("predict")
    half.did("tune")
    tuned = (half.cars / "tuning.json").read_text()
    there = half.root / "shared"
    there.mkdir()
    (there / "out.csv").write_text("what was there")
    with read_only(there):
        line = refused(half, "blend", "-o", there / "out.csv")
        assert line.startswith(f"error: {there / 'out.csv'} cannot be written: ")
        assert files(there) == {there / "out.csv": b"what was there"}
    with read_only(half.cars):
        assert "cannot be written" in refused(half, "tune", "--seed", "1")
        assert (half.cars / "tuning.json").read_text() == tuned
    half.did("blend", "--weights", "tuned", "-o", there / "out.csv")
