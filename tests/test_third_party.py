"""A stranger's plugin, from an empty virtual environment to a submission.

The environment gets carvana-ens as a wheel of this checkout, without torch, and a package of one short module that
knows nothing but the public names. pip needs an index for the libraries; where it reaches none, the test fails.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import pytest

HERE = Path(__file__).parents[1]
PYPROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "red-is-car"
version = "2.1"
dependencies = ["carvana-ens", "numpy"]
[project.entry-points."carvana_ens.models"]
red = "red_is_car:Red"
"""
MODULE = '''"""The redder a pixel, the likelier it is the object."""

from dataclasses import dataclass

import numpy as np

from carvana_ens import Batch, Model, option


@dataclass(frozen=True)
class RedOptions:
    """What may be set with --set."""

    gain: float = option(1.0, "multiplies the red of each pixel")


class Red(Model):
    """Reads the probability off the red channel."""

    Options = RedOptions
    batch_size = 3

    def predict(self, batch: Batch) -> np.ndarray:
        """(N, H, W) probabilities."""
        return np.minimum(np.float32(self.options.gain / 255) * batch.images[..., 0], 1)
'''
HEIGHT, WIDTH = 48, 70
TRAIN = [f"{car}_{view:02d}" for car in ("aa", "bb", "cc") for view in (1, 2)]
TEST = [f"{car}_{view:02d}" for car in ("dd", "ee") for view in (1, 2)]


class Installed:
    """A virtual environment, and its commands."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.pip_env = plain
        self.env = {**plain, "XDG_CACHE_HOME": str(cache)}

    def did(self, *command: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
        """The standard output of a command that must succeed."""
        done = self.run(*command, env=env, cwd=cwd)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(
        self, *command: object, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [str(self.bin / str(command[0])), *map(str, command[1:])]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=env or self.env, cwd=cwd)

    def pip(self, *arguments: object) -> str:
        return self.did("python", "-m", "pip", *arguments, env=self.pip_env)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("third-party")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    venv = Installed(folder / "venv", folder / "cache")
    plugin = folder / "plugin"
    plugin.mkdir()
    (plugin / "pyproject.toml").write_text(PYPROJECT)
    (plugin / "red_is_car.py").write_text(MODULE)
    venv.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "dist", HERE)
    wheel = next((folder / "dist").glob("carvana_ens-*.whl"))
    venv.pip("install", "--quiet", "--no-compile", wheel, plugin)
    yield venv
    shutil.rmtree(folder / "venv")  # pytest keeps what tests leave, and this is large


def truth(image_id: str) -> PIL.Image.Image:
    rng = np.random.default_rng(list(image_id.encode()))
    mask = PIL.Image.new("L", (WIDTH, HEIGHT), 0)
    left, top = int(rng.integers(5, 20)), int(rng.integers(4, 14))
    PIL.ImageDraw.Draw(mask).ellipse((left, top, left + 40, top + 28), fill=255)
    return mask


def noisy(mask: np.ndarray, seed: str, low: int, high: int, spread: int) -> np.ndarray:
    rng = np.random.default_rng(list(seed.encode()))
    noise = rng.integers(-spread, spread + 1, mask.shape)
    return (np.where(mask, high, low) + noise).clip(0, 255).astype(np.uint8)


def red_of(image_id: str) -> np.ndarray:
    """(H, W) the red channel of a photo, which is also the code that the plugin's map must have."""
    return noisy(np.asarray(truth(image_id)) > 0, f"red {image_id}", 70, 170, 65)


def made_elsewhere(image_id: str) -> np.ndarray:
    """(H, W) the codes of a map that somebody else made: soft at the edge, and a little beside the truth."""
    soft = truth(image_id).filter(PIL.ImageFilter.GaussianBlur(2))
    return np.roll(np.asarray(soft), 2, axis=1)


def draw(folder: Path) -> None:
    for split, ids in (("train", TRAIN), ("test", TEST)):
        for name in (split, f"{split}_maps", "masks"):
            (folder / name).mkdir(exist_ok=True)
        for image_id in ids:
            red = red_of(image_id)
            other = noisy(red > 0, f"rest {image_id}", 0, 120, 60)
            photo = PIL.Image.fromarray(np.stack([red, other, other], axis=2))
            photo.save(folder / split / f"{image_id}.png")
            PIL.Image.fromarray(made_elsewhere(image_id)).save(folder / f"{split}_maps" / f"{image_id}.png")
            if split == "train":
                truth(image_id).save(folder / "masks" / f"{image_id}.png")


def decoded(text: str) -> np.ndarray:
    """(H, W) bool of a run-length encoding: row by row, pixels from 1, start and length in turn."""
    flat = np.zeros(HEIGHT * WIDTH, bool)
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(HEIGHT, WIDTH)


def blended(image_id: str, weights: dict[str, int], threshold: str) -> np.ndarray:
    """(H, W) bool: the blend as it is defined, in whole numbers."""
    codes = {"red": red_of(image_id).astype(int), "elsewhere": made_elsewhere(image_id).astype(int)}
    summed = sum(weight * codes[name] for name, weight in weights.items())
    return summed >= math.ceil(Fraction(threshold) * 255 * sum(weights.values()))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


def submission(path: Path) -> dict[str, np.ndarray]:
    with gzip.open(path, "rt", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["img", "rle_mask"]
    return {Path(name).stem: decoded(text) for name, text in rows}


def test_the_plugin_is_short_and_needs_public_names_only() -> None:
    assert len(MODULE.splitlines()) <= 30
    assert MODULE.count("carvana_ens") == 1
    assert "\nfrom carvana_ens import Batch, Model, option\n" in MODULE


@pytest.mark.slow
def test_no_torch_is_needed(installed: Installed) -> None:
    for library in ("torch", "torchvision", "timm"):
        done = installed.run("python", "-c", f"import {library}")
        assert f"No module named '{library}'" in done.stderr
    # ours, not the checkout that the tests run from
    where = installed.did("python", "-c", "import carvana_ens; print(carvana_ens.__file__)", cwd=installed.bin).strip()
    assert Path(where).is_relative_to(installed.bin.parent)


@pytest.mark.slow
def test_from_an_empty_environment_to_a_submission(installed: Installed, tmp_path: Path) -> None:
    draw(tmp_path)
    project = tmp_path / "project"

    def did(*words: object) -> str:
        return installed.did("carvana-ens", *words, cwd=tmp_path if words[0] in ("init", "models") else project)

    listing = json.loads(did("models", "--json"))
    assert listing == {
        "models": [{"name": "red", "distribution": "red-is-car", "version": "2.1", "reason": None}],
        "problems": [],
    }
    assert did("models").splitlines()[1].split() == ["red", "red-is-car", "2.1"]
    assert "multiplies the red of each pixel" in did("models", "red")

    did("init", "project", "--images", "train", "--masks", "masks", "--test", "test")
    did("add-model", "red")
    did("import", "elsewhere", "--from", "../train_maps", "--split", "oof", "--out-of-fold")
    did("import", "elsewhere", "--from", "../test_maps", "--split", "test")
    lines = did("predict").splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [
        f"{len(TRAIN)} maps predicted, {len(TRAIN)} in all",
        f"{len(TEST)} maps predicted, {len(TEST)} in all",
    ]
    assert did("predict").count(": 0 maps predicted") == 2

    tuned = json.loads(did("tune", "--json"))
    assert tuned["images"] == len(TRAIN)
    weights, threshold = tuned["weights"], tuned["threshold"]
    for split, ids in (("oof", TRAIN), ("test", TEST)):
        did("blend", "--weights", "tuned", "--split", split, "-o", f"{split}.csv.gz")
        masks = submission(project / f"{split}.csv.gz")
        assert sorted(masks) == sorted(ids)
        for image_id in ids:
            np.testing.assert_array_equal(masks[image_id], blended(image_id, weights, threshold))
    scores = [dice(submission(project / "oof.csv.gz")[i], np.asarray(truth(i)) > 0) for i in TRAIN]
    assert np.mean(scores) == pytest.approx(tuned["scores"]["tuned"], abs=1e-12)
    assert min(weights.values()) > 0  # drawn so that each member has something to add
    assert tuned["scores"]["tuned"] > tuned["scores"]["best single"]

    done = json.loads(
        did("blend", "--weights", "red=2,elsewhere=1/2", "--threshold", "0.4", "-o", "hand.csv.gz", "--json")
    )
    assert done["weights"] == {"red": 4, "elsewhere": 1}
    masks = submission(project / "hand.csv.gz")
    for image_id in TEST:
        np.testing.assert_array_equal(masks[image_id], blended(image_id, done["weights"], "2/5"))
