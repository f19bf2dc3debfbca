"""Maps as numpy files: a folder of ``<id>.npy`` and ``<id>.npz``, nnU-Net's among them, or one file of all."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from carvana_ens.data.ids import check_id
from carvana_ens.data.map_source import (
    NNUNET_KEYS,
    Kind,
    Values,
    checked_ids,
    kind_of,
    no_ids,
    one_channel,
    read_ids,
    stack_numbers,
)
from carvana_ens.data.mask_source import unknown_id
from carvana_ens.errors import DataError, first_line
from carvana_ens.types import Size

SUFFIXES = (".npy", ".npz")
_IDS = "ids"
_Header = tuple[tuple[int, ...], Any]


class ArrayFolder:
    """One file a map: ``.npy``, or ``.npz`` of one array (or of nnU-Net, see NNUNET_KEYS)."""

    def __init__(self, folder: Path, key: str | None = None, channel: int | None = None) -> None:
        """Lists the folder once; other files in it do not count.

        Args:
            folder: its own files only.
            key: name of the array in each ``.npz``.
            channel: see ``one_channel``.

        Raises:
            DataError: no such folder, no map in it, two files of one id, or a stem that cannot be an id.
        """
        self._key, self._channel, self.folder = key, channel, folder
        self._paths: dict[str, Path] = {}
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        except OSError as error:
            raise DataError(f"the folder of maps {folder} cannot be read: {error.strerror or error}") from error
        for path in files:
            if path.name.startswith("."):
                continue
            image_id = check_id(path.stem)
            if image_id in self._paths:
                raise DataError(f"{folder} has two maps of image {image_id!r}, .npy and .npz: keep one")
            self._paths[image_id] = path
        if not self._paths:
            raise DataError(f"the folder of maps {folder} holds no .npy and no .npz file: name the folder that does")
        self._paths = dict(sorted(self._paths.items()))

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a map, sorted."""
        return tuple(self._paths)

    @property
    def kind(self) -> Kind:
        """What the values are, by the first map's header."""
        path = next(iter(self._paths.values()))
        with _array(path, self._key) as (_, _, (_, dtype)):
            return kind_of(dtype, f"map {path}")

    def size(self, image_id: str) -> Size:
        """See MapSource; from the file's header."""
        path = self._path(image_id)
        with _array(path, self._key) as (_, name, (shape, _)):
            return Size(*self._map(np.broadcast_to(np.uint8(0), shape), path, name).shape)  # a view: no memory

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """See MapSource."""
        return ((image_id, partial(self._read, self._path(image_id))) for image_id in sizes)

    def _path(self, image_id: str) -> Path:
        if image_id not in self._paths:
            raise unknown_id(image_id, f"the folder of maps {self.folder}", self._paths)
        return self._paths[image_id]

    def _read(self, path: Path) -> Values:
        with _array(path, self._key) as (file, name, (shape, dtype)):
            kind_of(dtype, f"map {path}")
            content = _values(file, shape, dtype, path)
            if file.read(1):
                raise DataError(f"map {path} goes on after its array: write it anew")
            return np.ascontiguousarray(self._map(content, path, name))

    def _map(self, values: Values, path: Path, name: str) -> Values:
        return one_channel(values, self._channel, f"map {path}", last=name in NNUNET_KEYS)


class ArrayStack:
    """All maps in one ``.npy`` or ``.npz``: (N, H, W), or (N, C, H, W); read from the front to the end."""

    def __init__(
        self, path: Path, key: str | None = None, channel: int | None = None, ids_file: Path | None = None
    ) -> None:
        """Reads the header and the ids.

        Args:
            path: the file.
            key: name of the array in a ``.npz``; None: the only one beside ``ids``.
            channel: see ``one_channel``.
            ids_file: one id a line; None: the array ``ids`` of the ``.npz``.

        Raises:
            DataError: no such file, a damaged one, or ids that are not those of N maps.
            UsageError: no ids.
        """
        self.path, self._key, self._channel = path, key, channel
        with _array(path, key) as (_, _, (self._shape, self._dtype)):
            pass
        ids = read_ids(ids_file) if ids_file is not None else _ids_beside(path)
        self._numbers = stack_numbers(ids, self._shape, str(path))

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a map, sorted."""
        return tuple(sorted(self._numbers))

    @property
    def kind(self) -> Kind:
        """What the values are."""
        return kind_of(self._dtype, str(self.path))

    def size(self, image_id: str) -> Size:
        """See MapSource."""
        if image_id not in self._numbers:
            raise unknown_id(image_id, str(self.path), self._numbers)
        return Size(*self._map(np.broadcast_to(np.uint8(0), self._shape[1:]), image_id).shape)

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """See MapSource; one map after the other is read here, by whoever takes them, and not by the functions."""
        wanted = {self._numbers[image_id]: image_id for image_id in sizes}
        octets = prod(self._shape[1:]) * self._dtype.itemsize
        with _array(self.path, self._key) as (file, _, _):
            at = 0
            for number in sorted(wanted):
                _skip(file, (number - at) * octets, self.path)
                at = number + 1
                values = _values(file, self._shape[1:], self._dtype, self.path)
                yield wanted[number], partial(self._map, values, wanted[number])

    def _map(self, values: Values, image_id: str) -> Values:
        return np.ascontiguousarray(one_channel(values, self._channel, f"the map of {image_id} in {self.path}"))


def _ids_beside(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() != ".npz":
        raise no_ids(str(path))
    try:
        with np.load(path, allow_pickle=False) as archive:
            if _IDS not in archive:
                raise no_ids(str(path))
            return checked_ids(archive[_IDS].ravel().tolist(), f"{path}, array {_IDS}")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the ids in {path} cannot be read: {first_line(error)}; save them as an array of text"
        ) from error


@contextmanager
def _array(path: Path, key: str | None) -> Iterator[tuple[IO[bytes], str, _Header]]:
    """The values of an array, from the first on, its name ("" in a ``.npy``), and its shape and dtype.

    Never unpickles; arrays in Fortran order are refused.
    """
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                name = _chosen(archive, key, path)
                with archive.open(f"{name}.npy") as file:
                    yield file, name, _header(file, path)
        else:
            with open(path, "rb") as plain:
                yield plain, "", _header(plain, path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"map {path} cannot be read: {first_line(error)}; is the file whole?") from error


def _chosen(archive: zipfile.ZipFile, key: str | None, path: Path) -> str:
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if key is not None and key not in names:
        raise DataError(f"{path} has no array {key!r}: it has {', '.join(names) or 'none'}")
    of_maps = [name for name in names if name != _IDS]
    known = [name for name in NNUNET_KEYS if name in names] or of_maps
    if key is None and len(known) != 1:
        raise DataError(f"{path} has {len(of_maps)} arrays ({', '.join(of_maps)}): say with --key which holds the map")
    return known[0] if key is None else key


def _header(file: IO[bytes], path: Path) -> _Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if dtype.hasobject:
        raise DataError(f"{path} holds Python objects, which are not unpickled: save an array of numbers")
    if by_columns and len(shape) > 1:
        raise DataError(f"{path} is in Fortran order: save numpy.ascontiguousarray of it")
    return shape, dtype


def _values(file: IO[bytes], shape: tuple[int, ...], dtype: Any, path: Path) -> Values:
    octets = prod(shape) * dtype.itemsize
    content = file.read(octets)
    if len(content) != octets:
        raise DataError(f"{path} ends in the middle of a map: is the file whole?")
    values = np.frombuffer(content, dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _skip(file: IO[bytes], octets: int, path: Path) -> None:
    if file.seekable() and not isinstance(file, zipfile.ZipExtFile):
        file.seek(octets, 1)
        return
    while octets > 0:
        passed = len(file.read(min(octets, 1 << 20)))
        if not passed:
            raise DataError(f"{path} ends in the middle of a map: is the file whole?")
        octets -= passed
