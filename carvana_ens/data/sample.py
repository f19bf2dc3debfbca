"""Made-up turntable photos in Carvana's own layout, drawn by code, so that everything can be tried without real data.

A car is a small mesh with its own measures and finish, seen in ``views`` steps of a full turn. Masks are exact: the car
is drawn at twice the size, and a pixel is the car's where at least half of its four samples are.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pictures

from carvana_ens.data.sample_car import Car, build_mesh, draw_car
from carvana_ens.data.sample_paint import paint
from carvana_ens.data.sample_raster import Mesh, rasterise
from carvana_ens.data.sample_studio import Backdrop, Studio, draw_studio, placed, yaw_of
from carvana_ens.errors import CarvanaEnsError, DataError, UsageError
from carvana_ens.files import replacing, write_text
from carvana_ens.types import Image, Mask, Size, Track, untracked

_FINER = 2


@dataclass(frozen=True)
class SampleReport:
    """What ``make_sample`` wrote."""

    folder: Path
    train_images: int
    test_images: int
    cars: int


def make_sample(
    folder: Path,
    cars: int,
    views: int = 16,
    size: Size = Size(1280, 1918),  # noqa: B008 (a tuple)
    seed: int = 0,
    track: Track = untracked,
) -> SampleReport:
    """Draws a data set of made-up cars.

    Writes ``train_hq/<car>_<view>.jpg``, ``train_masks/<car>_<view>_mask.gif`` (two colours), ``test_hq``,
    ``sample_submission.csv``, and ``test_masks``: the truth of the test photos, for scoring the example, which
    Carvana does not give. About a third of the cars, at least one, are test cars. The same arguments give the same
    bytes with the same versions of numpy and Pillow. The folder appears only once it is complete.

    Args:
        folder: a folder that does not exist yet, or an empty one.
        cars: number of cars, training and test together, at least 2.
        views: photos of each car, 2 to 99, in equal steps of a full turn.
        size: height and width of the photos, at least 64x64.
        seed: chooses the cars, the studios and the noise; not negative.
        track: shows progress, one step a photo.

    Raises:
        UsageError: a number is out of its range.
        DataError: the folder holds something already, or is a file.
        CarvanaEnsError: the folder cannot be written.
    """
    _check(cars, views, size, seed)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists and is not an empty folder: name a new folder for the sample, or empty this one"
        )
    tests = max(1, round(cars / 3))
    work = folder.absolute().with_name(f".{folder.absolute().name}.{uuid.uuid4().hex}.partial")
    try:
        shots = track(_shots(cars, views, size, seed), cars * views, "photos")
        names = []
        for car, view, photo, mask, quality in shots:
            name = f"{car_id(seed, car)}_{view + 1:02d}"
            part = "test" if car >= cars - tests else "train"
            _write_photo(work / f"{part}_hq" / f"{name}.jpg", photo, quality)
            _write_mask(work / f"{part}_masks" / f"{name}_mask.gif", mask)
            if part == "test":
                names.append(name)
        rows = "".join(f"{name}.jpg,\n" for name in sorted(names))
        write_text(work / "sample_submission.csv", "img,rle_mask\n" + rows)
        if folder.exists():
            folder.rmdir()
        work.rename(folder)
    except OSError as error:
        raise CarvanaEnsError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return SampleReport(folder, (cars - tests) * views, tests * views, cars)


def car_id(seed: int, car: int) -> str:
    """The id of a car of the sample: 12 hexadecimal digits, as Carvana's."""
    return hashlib.sha256(f"carvana-ens sample {seed} {car}".encode()).hexdigest()[:12]


def _check(cars: int, views: int, size: Size, seed: int) -> None:
    if cars < 2:
        raise UsageError(
            f"a sample of {cars} cars cannot be split: ask for 2 cars or more, one to train on and one to test"
        )
    if not 2 <= views <= 99:
        raise UsageError(f"{views} views of a car: ask for 2 to 99")
    if size.height < 64 or size.width < 64:
        raise UsageError(f"photos of {size} are too small to show a car: ask for 64x64 or more")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative: give 0 or more")


def _shots(cars: int, views: int, size: Size, seed: int) -> Iterator[tuple[int, int, Image, Mask, int]]:
    """Every car and view in turn: the photo, its mask and the JPEG quality of the car's studio."""
    for index in range(cars):
        car, studio = draw_car(seed, index), draw_studio(seed, index, size)
        mesh, backdrop = build_mesh(car), Backdrop(studio)
        for view in range(views):
            noise = np.random.default_rng([seed, 6, index + 1, view + 1])
            photo, mask = draw_shot(car, mesh, studio, backdrop, yaw_of(view, views), noise)
            yield index, view, photo, mask, studio.quality


def draw_shot(
    car: Car, mesh: Mesh, studio: Studio, backdrop: Backdrop, yaw: float, noise: np.random.Generator
) -> tuple[Image, Mask]:
    """One photo (H, W, 3) and its mask (H, W): studio, car and the sensor's noise."""
    height, width = studio.camera.size
    picture = backdrop.view(car, yaw)
    turned = mesh._replace(points=placed(mesh.points, yaw), normals=placed(mesh.normals, yaw))
    seen = rasterise(turned, studio.camera.finer(_FINER))
    pixel = (seen.rows // _FINER) * width + seen.columns // _FINER
    flat = picture.reshape(-1, 3)
    colours = np.clip(paint(seen, car, yaw, flat[pixel], studio.light), 0, 1)
    samples = np.bincount(pixel, minlength=height * width)
    inside = np.flatnonzero(samples)
    share = (samples[inside] / _FINER**2).astype(np.float32)
    for channel in range(3):
        total = np.bincount(pixel, weights=colours[:, channel], minlength=height * width)[inside]
        flat[inside, channel] = flat[inside, channel] * (1 - share) + (total / _FINER**2).astype(np.float32)
    exposure = np.float32(noise.uniform(0.97, 1.03))
    grain = noise.standard_normal((height, width), np.float32)[:, :, None] * np.float32(studio.noise)
    tint = noise.standard_normal((height, width, 3), np.float32) * np.float32(studio.noise / 2)
    photo = np.rint(np.clip(picture * exposure + grain + tint, 0, 1) * np.float32(255)).astype(np.uint8)
    return photo, samples.reshape(height, width) * 2 >= _FINER**2


def _write_photo(path: Path, photo: Image, quality: int) -> None:
    with replacing(path) as temporary:
        Pictures.fromarray(photo).save(temporary, "JPEG", quality=quality)


def _write_mask(path: Path, mask: Mask) -> None:
    """A GIF of two colours: index 0 black, index 1 white, as Carvana's."""
    picture = Pictures.fromarray(mask.astype(np.uint8), "L")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    with replacing(path) as temporary:
        picture.save(temporary, "GIF")
