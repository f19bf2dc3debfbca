from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import carvana_ens
from carvana_ens.core import jit

SCRIPT = """
import numba, numpy as np
before = numba.config.CACHE_DIR
from carvana_ens.core import jit, rle
mask = np.zeros((9, 9), np.bool_)
mask[2, 3:7] = mask[8, 8] = True
text = rle.rle_encode(mask)
assert np.array_equal(rle.rle_decode(text, mask.shape), mask)
hits = sum(sum(getattr(rle.kernels, name).stats.cache_hits.values()) for name in ("pack_mask", "write_runs"))
print(text, jit.FOLDER, numba.config.CACHE_DIR == before, hits, sep="|")
"""

WHERE = "from carvana_ens.core import jit; print(jit.FOLDER)"


def run_python(script=SCRIPT, **environment):
    """What the script prints in a fresh process, split at bars."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "CARVANA_ENS_"))}
    root = str(Path(carvana_ens.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**keep, "PYTHONPATH": root, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    text, _, restored, hits = run_python(CARVANA_ENS_CACHE=folder)
    assert (text, restored, hits) == ("22 4 81 1", "True", "0")
    return folder


def test_kernels_are_kept_in_a_private_folder(filled_cache):
    text, folder, restored, hits = run_python(CARVANA_ENS_CACHE=filled_cache)
    assert (text, restored, hits) == ("22 4 81 1", "True", "2")
    assert Path(folder).parent == filled_cache
    assert carvana_ens.__version__ in Path(folder).name
    assert numba.__version__ in Path(folder).name
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert list(Path(folder).rglob("*.nbc"))


@pytest.mark.parametrize(("suffix", "damage"), [("nbi", "empty"), ("nbi", "cut"), ("nbc", "cut"), ("nbc", "other")])
def test_damaged_cache_files_are_replaced(filled_cache, suffix, damage):
    paths = list(filled_cache.rglob(f"*.{suffix}"))
    assert paths
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "other": b"garbage\n" * 9}[damage])
    assert run_python(CARVANA_ENS_CACHE=filled_cache)[0] == "22 4 81 1"
    for path in paths:
        pickle.loads(path.read_bytes())


def test_a_replaced_cache_is_used(filled_cache):
    for path in filled_cache.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:1000])
    run_python(CARVANA_ENS_CACHE=filled_cache)
    assert run_python(CARVANA_ENS_CACHE=filled_cache)[3] == "2"


def test_without_a_writable_folder_kernels_are_not_kept(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("in the way")
    text, folder, restored, hits = run_python(CARVANA_ENS_CACHE=occupied / "cache")
    assert (text, folder, restored, hits) == ("22 4 81 1", "None", "True", "0")


def test_without_a_home_the_temporary_folder_is_used_if_it_is_private(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("in the way")
    environment = {"HOME": occupied, "XDG_CACHE_HOME": occupied / "cache", "TMPDIR": tmp_path}
    (folder,) = run_python(WHERE, **environment)
    assert Path(folder).parents[1] == tmp_path
    Path(folder).parent.chmod(0o777)
    assert run_python(WHERE, **environment) == ["None"]


def test_a_folder_that_is_a_link_is_not_trusted(tmp_path, filled_cache):
    name = next(filled_cache.iterdir()).name
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    assert run_python(WHERE, CARVANA_ENS_CACHE=tmp_path) == ["None"]


def test_other_libraries_keep_their_place(tmp_path):
    script = SCRIPT + "\nprint('|', numba.config.CACHE_DIR, sep='')"
    answer = run_python(script, NUMBA_CACHE_DIR=tmp_path / "theirs", CARVANA_ENS_CACHE=tmp_path / "ours")
    assert Path(answer[1]).parent == tmp_path / "ours"
    assert answer[-1] == str(tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_checked_kernels_are_kept_apart(filled_cache):
    plain = run_python(WHERE, CARVANA_ENS_CACHE=filled_cache)
    checked = run_python(CARVANA_ENS_CACHE=filled_cache, NUMBA_BOUNDSCHECK=1)
    assert checked[1] != plain[0]
    assert checked[3] == "0"


def test_slow_twins_stand_in_where_the_compiler_is_off():
    script = """
import numpy as np
from carvana_ens.core import blend, curve, rle
rng = np.random.default_rng(0)
for dtype, full in ((np.uint8, 255), (np.uint16, 65535)):
    for codes in (rng.integers(0, full + 1, (3, 150)), np.repeat(rng.integers(0, full + 1, (1, 150)), 3, 0)):
        codes, weights = codes.astype(dtype), np.array([1, 3, 2], np.uint32)
        sums = (codes.astype(np.int64) * weights[:, None]).sum(0)
        truth = rng.random((1, 150)) < 0.5
        bits = blend.blend_bits(codes, weights, 3 * full)
        assert np.array_equal(bits, rle.mask_bits((sums >= 3 * full)[None]))
        got = curve.histograms(codes, weights, rle.mask_bits(truth))
        expected = [np.bincount(sums[on] // 6, minlength=full + 1) for on in (truth[0], ~truth[0])]
        assert np.array_equal(got, expected)
mask = rng.random((9, 21)) < 0.5
assert np.array_equal(rle.rle_decode(rle.rle_encode(mask), mask.shape), mask)
print(rle.rle_encode(np.ones((2, 3), np.bool_)))
"""
    assert run_python(script, NUMBA_DISABLE_JIT=1) == ["1 6"]


class Flaky:
    """Stands for a kernel whose cache fails a number of times."""

    def __init__(self, error, times):
        self.error, self.times, self._cache, self.disabled = error, times, self, False

    def disable(self):
        self.disabled = True

    def __call__(self, number):
        if self.times:
            self.times -= 1
            raise self.error
        return number + 1


@pytest.mark.parametrize("error", [pickle.UnpicklingError("cut"), EOFError(), OSError(28, "disk full"), KeyError("x")])
def test_a_kernel_runs_whatever_its_cache_does(monkeypatch, tmp_path, error):
    monkeypatch.setattr(jit, "FOLDER", tmp_path)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.nbi").write_bytes(b"x")
    (tmp_path / "core" / "mine.txt").write_bytes(b"x")
    once, twice, always = Flaky(error, 1), Flaky(error, 2), Flaky(error, 99)
    assert jit.run(once, 1) == 2
    assert not once.disabled
    assert [path.name for path in (tmp_path / "core").iterdir()] == ["mine.txt"]
    assert jit.run(twice, 1) == 2
    assert twice.disabled
    with pytest.raises(type(error)):
        jit.run(always, 1)


def test_an_error_that_no_cache_makes_goes_through(monkeypatch, tmp_path):
    monkeypatch.setattr(jit, "FOLDER", tmp_path)
    flaky = Flaky(numba.core.errors.TypingError("wrong types"), 1)
    with pytest.raises(numba.core.errors.TypingError):
        jit.run(flaky, 1)
    monkeypatch.setattr(jit, "FOLDER", None)
    with pytest.raises(EOFError):
        jit.run(Flaky(EOFError(), 1), 1)


def test_every_kernel_has_a_slow_twin(reference):
    names = [
        node.name
        for path in Path(jit.__file__).parent.glob("*kernels.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "kernel" for mark in node.decorator_list)
    ]
    assert len(names) >= 8
    assert [name for name in names if not callable(getattr(reference, name, None))] == []
