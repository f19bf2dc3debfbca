"""What the tests of verbs, command line and ensemble share: drawn photos, masks and maps, and a way to run commands.

Nothing here uses carvana_ens to make or to check data: Pillow and numpy are the oracle.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest

import carvana_ens
from carvana_ens.cli import main

T = TypeVar("T")
RESULTS: dict[str, Any] = {}
SIZE = (48, 71)
TRAIN = [f"{car}_{view:02d}" for car in ("0a1", "7f3") for view in (1, 2, 3, 4)]
TEST = [f"{car}_{view:02d}" for car in ("b22", "c9d") for view in (1, 2, 3)]
COMMAND = "from carvana_ens.cli import main; main()"
HELD = """
import importlib, os, sys, time
place, mark, seconds = sys.argv.pop(1), sys.argv.pop(1), float(sys.argv.pop(1))
module, _, names = place.partition(":")
owner = importlib.import_module(module)
*path, name = names.split(".")
for step in path:
    owner = getattr(owner, step)
real, calls = getattr(owner, name), []

def held(*args, **more):
    calls.append(None)
    if len(calls) == 3:
        open(mark, "x").close()
        end = time.monotonic() + seconds
        while os.path.exists(mark) and time.monotonic() < end:
            time.sleep(0.01)
    return real(*args, **more)

setattr(owner, name, held)
from carvana_ens.cli import main
main()
"""
"""The command line, where the third call of a function makes a file, and takes long, or until it is removed."""
ENTRIES = """[carvana_ens.models]
bright-cut = numpy_models:BrightCut
learned-cut = numpy_models:LearnedCut
group-cut = numpy_models:GroupCut
faulty = numpy_models:Faulty
bad-fit = numpy_models:BadFit
broken = numpy_models_broken:Broken
"""


def ellipse(image_id: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The true mask of a drawn photo, (H, W) bool."""
    rng = np.random.default_rng(list(image_id.encode()))
    y, x = np.indices(size)
    cy, cx = size[0] * rng.uniform(0.4, 0.6), size[1] * rng.uniform(0.4, 0.6)
    ry, rx = size[0] * rng.uniform(0.2, 0.3), size[1] * rng.uniform(0.2, 0.35)
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


def photo(image_id: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8: a bright ellipse on dark, both with noise."""
    rng = np.random.default_rng(list(image_id.encode()[::-1]))
    ground = rng.integers(30, 110, (*size, 3))
    return np.where(ellipse(image_id, size)[..., None], ground + 80, ground).astype(np.uint8)


def save_photo(folder: Path, image_id: str, size: tuple[int, int] = SIZE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{image_id}.jpg"
    PIL.Image.fromarray(photo(image_id, size)).save(path, quality=95, subsampling=0)
    return path


def save_mask(folder: Path, image_id: str, mask: np.ndarray) -> Path:
    """A GIF whose pixels are palette indices, with white at index 0 in half of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    white = len(image_id) + ord(image_id[-1]) & 1
    indexed = PIL.Image.fromarray(np.where(mask, white, 1 - white).astype(np.uint8))
    indexed.putpalette([0, 0, 0, 255, 255, 255] if white else [255, 255, 255, 0, 0, 0])
    path = folder / f"{image_id}_mask.gif"
    indexed.save(path)
    return path


def blurred(mask: np.ndarray, blur: float, shift: int, noise: int = 0, seed: int = 0) -> np.ndarray:
    """(H, W) uint8 codes: the mask moved to the right, blurred, with noise."""
    moved = np.roll(mask, shift, axis=1).astype(np.uint8) * 255
    soft = np.asarray(PIL.Image.fromarray(moved).filter(PIL.ImageFilter.GaussianBlur(blur))).astype(np.int64)
    if noise:
        soft = soft + np.random.default_rng(seed).integers(-noise, noise + 1, soft.shape)
    return np.clip(soft, 0, 255).astype(np.uint8)


def save_grey(path: Path, codes: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(codes).save(path)
    return path


def naive_rle(mask: np.ndarray) -> str:
    """Row-major, 1-based ``start length`` pairs, one pixel at a time."""
    runs: list[list[int]] = []
    for place, on in enumerate(mask.ravel().tolist(), start=1):
        if on and runs and sum(runs[-1]) == place:
            runs[-1][1] += 1
        elif on:
            runs.append([place, 1])
    return " ".join(f"{start} {length}" for start, length in runs)


def naive_decode(text: str, size: tuple[int, int]) -> np.ndarray:
    flat = np.zeros(size[0] * size[1], bool)
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(size)


def naive_blend(
    maps: list[np.ndarray], weights: list[Fraction], threshold: Fraction, full_scale: int = 255
) -> np.ndarray:
    """sum(w code) >= t S sum(w), in whole numbers after multiplying with every denominator."""
    scale = threshold.denominator
    for weight in weights:
        scale *= weight.denominator
    total = np.zeros(maps[0].shape, np.int64)
    for codes, weight in zip(maps, weights, strict=True):
        total += codes.astype(np.int64) * int(weight * scale)
    return total >= threshold * full_scale * int(sum(weights) * scale)


def naive_dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2 * int((a & b).sum()) / total


def read_rows(path: Path) -> dict[str, str]:
    """The rows of a submission by the name in column ``img``."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["img", "rle_mask"]
    return dict(rows[1:])


def write_rows(
    path: Path, rows: dict[str, str], header: str = "img,rle_mask", end: str = "\n", start: bytes = b""
) -> Path:
    text = end.join([header, *(f"{name},{rle}" for name, rle in rows.items()), ""])
    path.write_bytes(start + text.encode())
    return path


def coco(path: Path, masks: dict[str, np.ndarray], category: str = "car") -> Path:
    """A COCO file with each mask as uncompressed column-major RLE."""
    document: dict = {"categories": [{"id": 3, "name": category}], "images": [], "annotations": []}
    for number, (image_id, mask) in enumerate(masks.items(), start=1):
        flat = mask.T.ravel().tolist()
        counts, current = [0], False
        for on in flat:
            if on != current:
                counts.append(0)
                current = on
            counts[-1] += 1
        document["images"].append(
            {"id": number, "file_name": f"{image_id}.jpg", "height": mask.shape[0], "width": mask.shape[1]}
        )
        segmentation = {"counts": counts, "size": list(mask.shape)}
        document["annotations"].append(
            {"id": number, "image_id": number, "category_id": 3, "segmentation": segmentation, "iscrowd": 1}
        )
    path.write_text(json.dumps(document))
    return path


def heeding_interrupts() -> None:
    """In a child: Ctrl-C means something, also where a shell started the tests in its background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Done:
    """code, out and err of one command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that an error may have (after click's lines on usage), without ``error: ``."""
        lines = [line for line in self.err.splitlines() if line]
        told = [line for line in lines if line.startswith("error: ")]
        assert len(told) == 1, self.err
        assert told[0] == lines[-1], self.err
        assert "Traceback" not in self.err
        assert self.code in (1, 2), self
        return told[0].removeprefix("error: ")


class World:
    """One test's folder: ``train_hq``, ``train_masks``, ``test_hq``, ``test_masks`` as drawn, and projects beside."""

    def __init__(self, root: Path, site: Path, run: Callable[..., Done], shelf: Path) -> None:
        self.root, self.site, self.run, self.shelf = root, site, run, shelf
        self.images, self.masks = root / "train_hq", root / "train_masks"
        self.test, self.test_masks = root / "test_hq", root / "test_masks"
        self.cars = root / "cars"
        self.log = root / "calls.log"

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives; its files are made once a session under this name, and copied after that."""
        place = self.shelf / name
        if name not in RESULTS:
            RESULTS[name] = make()
            shutil.copytree(self.root, place)
        else:
            shutil.copytree(place, self.root, dirs_exist_ok=True)
        return RESULTS[name]

    def init(self, *more: object) -> Done:
        """The usual project ``cars``; 2 folds."""
        words = ("init", self.cars, "--images", self.images, "--masks", self.masks, "--test", self.test)
        done = self.run(*words, *more)
        assert done.code == 0, done
        return done

    def do(self, verb: str, *words: object) -> Done:
        """A command in the project ``cars``."""
        return self.run("--project", self.cars, verb, *words)

    def did(self, verb: str, *words: object) -> Done:
        """A command that must succeed."""
        done = self.do(verb, *words)
        assert done.code == 0, done
        return done

    def maps(self, name: str, ids: list[str], blur: float, shift: int, noise: int = 0) -> dict[str, np.ndarray]:
        """Draws a folder of PNG maps; returns the codes."""
        codes = {i: blurred(ellipse(i), blur, shift, noise, seed=TRAIN.index(i) if i in TRAIN else 99) for i in ids}
        for image_id, values in codes.items():
            save_grey(self.root / name / f"{image_id}.png", values)
        return codes

    def imported(self, *members: tuple[str, float, int, int]) -> dict[str, dict[str, np.ndarray]]:
        """Members (name, blur, shift, noise) imported for both splits; the codes of all images by member."""
        found = {}
        for name, blur, shift, noise in members:
            found[name] = self.maps(f"{name}_oof", TRAIN, blur, shift, noise)
            self.did("import", name, "--from", self.root / f"{name}_oof", "--split", "oof", "--out-of-fold")
            found[name] |= self.maps(f"{name}_test", TEST, blur, shift, noise)
            self.did("import", name, "--from", self.root / f"{name}_test", "--split", "test")
        return found

    def calls(self, word: str = "") -> list[list[str]]:
        """Logged calls of the models since the last look that begin with ``word``, split into words."""
        lines = self.log.read_text().splitlines() if self.log.is_file() else []
        self.log.unlink(missing_ok=True)
        return [line.split() for line in lines if line.startswith(word)]

    def store(self, member: str, split: str) -> Path:
        return self.cars / "stores" / member / f"{split}.zarr"

    def process(
        self, *words: object, script: str = COMMAND, before: Sequence[object] = (), **more: object
    ) -> subprocess.Popen:
        """A command in a process of its own. script: runs it, after taking ``before`` from the arguments."""
        command = [sys.executable, "-c", script, *map(str, (*before, *words))]
        source = Path(carvana_ens.__file__).parents[1]
        path = filter(None, [str(self.site), str(source), os.environ.get("PYTHONPATH")])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        pipe = subprocess.PIPE
        more.setdefault("preexec_fn", heeding_interrupts)
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, **more)

    def held(self, place: str, mark: Path, seconds: float, *words: object) -> subprocess.Popen:
        """A command in a process, of which the third call of ``module:name`` takes so long; see HELD."""
        return self.process("--project", self.cars, *words, script=HELD, before=(place, mark, seconds))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and masks, drawn once; tests get copies."""
    root = tmp_path_factory.mktemp("drawn")
    for image_id in TRAIN:
        save_photo(root / "train_hq", image_id)
        save_mask(root / "train_masks", image_id, ellipse(image_id))
    for image_id in TEST:
        save_photo(root / "test_hq", image_id)
        save_mask(root / "test_masks", image_id, ellipse(image_id))
    return root


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for sys.path with the package of numpy_models.py, as pip would have left it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("numpy_models.py"), folder)
    (folder / "numpy_models_broken.py").write_text("import no_such_module_at_all\n")
    package(folder, "numpy_models", ENTRIES)
    return folder


def package(folder: Path, name: str, entries: str, version: str = "1.0") -> None:
    """The dist-info of a package with entry points."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entries)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command line in this process."""

    def command(*words: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        assert isinstance(end.value.code, int)
        return Done(end.value.code, *capsys.readouterr())

    return command


@pytest.fixture
def world(tmp_path: Path, drawn: Path, site: Path, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> World:
    """Fresh copies of the drawn data, and the numpy models on sys.path."""
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(site)
    here = World(tmp_path, site, run, drawn.parent / "kept")
    monkeypatch.setenv("NUMPY_MODELS_LOG", str(here.log))
    return here


@pytest.fixture
def project(world: World) -> World:
    """The world with an initialised project ``cars``."""
    world.kept("project", world.init)
    return world


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """This module: the slow twins and the ids of the drawn photos."""
    return sys.modules[__name__]
