"""Codes of probability maps as files of other tools: pictures, numpy files and HDF5."""

from __future__ import annotations

import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from carvana_ens.data.map_hdf5 import SUFFIXES as HDF5
from carvana_ens.data.map_hdf5 import load_h5py
from carvana_ens.errors import CarvanaEnsError, DataError, UsageError
from carvana_ens.files import replacing
from carvana_ens.types import Codes, Size

Put = Callable[[str, Codes], None]
"""Takes id and (h, w) codes of a map."""

FOLDERS = ("png", "npy")
"""Forms of one file a map: maps may come from several threads and be of several sizes."""
FILES = {"npz": (".npz",), "hdf5": HDF5}
"""Forms of one file for all, with its suffixes: maps are of one size and come in the order of their ids."""
_COMPRESSION_LEVEL = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date of a zip archive: equal maps give equal files."""


def check_maps_file(path: Path, form: str, sizes: Sequence[Size]) -> None:
    """Refuses a place for maps before any work is done for it.

    Raises:
        UsageError: something is there already, a file of another suffix, or h5py is not installed.
        DataError: maps of several sizes for one file.
    """
    if path.exists():
        raise UsageError(f"{path} is there already: give another name, or remove it first")
    if form in FOLDERS:
        return
    if path.suffix.lower() not in FILES[form]:
        raise UsageError(f"{path} ends in none of {', '.join(FILES[form])}: name the {form} file so")
    if form == "hdf5":
        load_h5py()
    other = next((size for size in sizes if size != sizes[0]), None)
    if other is not None:
        raise DataError(f"one {form} file holds maps of one size, and there are {sizes[0]} and {other}: use npy or png")


@contextmanager
def map_files(path: Path, form: str, ids: Sequence[str], size: Size, dtype: str) -> Iterator[Put]:
    """What takes the maps and writes them; a stop or an error leaves nothing.

    png: ``<id>.png``, grey of 8 or 16 bits. npy: ``<id>.npy``. npz: arrays ``maps`` (N, H, W) and ``ids``, compressed.
    hdf5: datasets of the same names, a chunk a map; the attribute ``full_scale`` is the code of probability 1.

    Args:
        path: the folder or file to make.
        form: one of FOLDERS or FILES.
        ids: of all maps.
        size: of each, where it is one file for all.
        dtype: of the codes.

    Raises:
        CarvanaEnsError: it cannot be written.
    """
    if form in FOLDERS:
        with _folder(path) as folder:
            yield lambda image_id, codes: _write_one(folder, form, image_id, codes)
    elif form == "npz":
        with replacing(path) as temporary, _npz(temporary, ids, size, dtype) as put:
            yield put
    else:
        with replacing(path) as temporary, load_h5py().File(temporary, "x") as file:
            maps = file.create_dataset(
                "maps",
                shape=(len(ids), *size),
                dtype=dtype,
                chunks=(1, *size),
                compression="gzip",
                compression_opts=_COMPRESSION_LEVEL,
            )
            maps.attrs["full_scale"] = np.iinfo(dtype).max
            file.create_dataset("ids", data=list(ids), dtype=load_h5py().string_dtype())
            numbers = iter(range(len(ids)))

            def put_next(_id: str, codes: Codes) -> None:
                maps[next(numbers)] = codes

            yield put_next


def _write_one(folder: Path, form: str, image_id: str, codes: Codes) -> None:
    with open(folder / f"{image_id}.{form}", "xb") as file:
        if form == "png":
            PIL.Image.fromarray(codes).save(file, format="PNG", compress_level=_COMPRESSION_LEVEL)
        else:
            np.save(file, codes)


@contextmanager
def _npz(path: Path, ids: Sequence[str], size: Size, dtype: str) -> Iterator[Put]:
    """As numpy.savez_compressed writes it, one map after the other."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as archive:
        with archive.open(_entry("ids"), "w") as file:
            np.lib.format.write_array(file, np.array(ids), allow_pickle=False)
        with archive.open(_entry("maps"), "w", force_zip64=True) as file:
            # an array of no memory has the header of all maps
            header = np.lib.format.header_data_from_array_1_0(np.empty((0, *size), dtype))
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(ids), *size)})
            yield lambda _id, codes: _write_all(file, codes)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _write_all(file: Any, codes: Codes) -> None:
    file.write(np.ascontiguousarray(codes).data.cast("B"))


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise CarvanaEnsError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
