"""Maps made elsewhere, opened by what lies at a path: one reader a format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from carvana_ens.core.rle_dialects import CARVANA
from carvana_ens.data import map_arrays, map_hdf5
from carvana_ens.data.ids import EXTENSIONS
from carvana_ens.data.map_arrays import ArrayFolder, ArrayStack
from carvana_ens.data.map_hdf5 import Hdf5Maps
from carvana_ens.data.map_source import (
    Kind,
    MapSource,
    Values,
    checked_ids,
    kind_of,
    no_ids,
    one_channel,
    read_ids,
    stack_numbers,
)
from carvana_ens.data.map_votes import Votes
from carvana_ens.data.maps import MapFolder
from carvana_ens.data.mask_source import unknown_id
from carvana_ens.data.rle_csv import SUFFIXES as TABLES
from carvana_ens.errors import DataError, StoreError, UsageError
from carvana_ens.store.store import open_store
from carvana_ens.store.zarr_maps import ZarrMaps, is_store
from carvana_ens.types import Size

_STACKED = ("key", "channel", "ids")
"""Options of stacks."""


@dataclass(frozen=True)
class MapOptions:
    """How to read maps; None for what is not said.

    format: a name of FORMATS. key: the array of several. channel: of several, see ``one_channel``. ids: a text file
    with one id a line, for a stack that has none. dialect: of a submission.
    """

    format: str | None = None
    key: str | None = None
    channel: int | None = None
    ids: Path | None = None
    dialect: str | None = None

    def said(self) -> dict[str, str]:
        """What decides the values, as texts by name."""
        texts = {"key": self.key, "channel": self.channel, "dialect": self.dialect}
        return {name: str(value) for name, value in texts.items() if value is not None}


def open_maps(path: Path, options: MapOptions | None = None) -> MapSource:
    """The maps at a path.

    Raises:
        UsageError: a format that is unknown or cannot be told, or an option that it does not have.
        DataError: nothing there, or what is there cannot be used.
        StoreError: a zarr that cannot be read.
    """
    options = options or MapOptions()
    if not path.exists():
        raise DataError(f"there are no maps at {path}: name a folder or a file")
    name = options.format or _found(path)
    if name not in FORMATS:
        raise UsageError(f"format {name!r} is unknown to import: use {', '.join(FORMATS)}")
    known, make = FORMATS[name]
    for field in fields(options):
        if field.name != "format" and field.name not in known and getattr(options, field.name) is not None:
            raise UsageError(f"--{field.name} means nothing to maps of format {name}: leave it out")
    return make(path, options)


class OwnMaps:
    """The maps of a probability store of ours, also of another project."""

    def __init__(self, path: Path, options: MapOptions) -> None:
        """See open_maps; the store must be complete."""
        for name in _STACKED:
            if getattr(options, name) is not None:
                raise UsageError(f"{path} is a probability store, which has one array and its ids: leave out --{name}")
        self._store = open_store(path)
        self._store.require_complete()

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids, sorted."""
        return tuple(sorted(self._store.ids))

    @property
    def kind(self) -> Kind:
        """What the values are."""
        return self._store.dtype

    def size(self, image_id: str) -> Size:
        """See MapSource."""
        return self._store.sizes[self._store.index[image_id]]

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """See MapSource."""
        return ((image_id, partial(self._store.read, image_id)) for image_id in sizes)


class ZarrStack:
    """The maps of a ZarrMaps."""

    def __init__(self, path: Path, options: MapOptions) -> None:
        """See open_maps."""
        self._maps, self._channel = ZarrMaps(path, options.key), options.channel
        if options.ids is not None:
            ids = read_ids(options.ids)
        elif self._maps.ids is not None:
            ids = checked_ids(self._maps.ids, f"{path}, array ids")
        else:
            raise no_ids(str(path))
        self._numbers = stack_numbers(ids, self._maps.shape, str(path))

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a map, sorted."""
        return tuple(sorted(self._numbers))

    @property
    def kind(self) -> Kind:
        """What the values are."""
        return kind_of(self._maps.dtype, str(self._maps.path))

    def size(self, image_id: str) -> Size:
        """See MapSource."""
        if image_id not in self._numbers:
            raise unknown_id(image_id, str(self._maps.path), self._numbers)
        return Size(*self._map(np.broadcast_to(np.uint8(0), self._maps.shape[1:]), image_id).shape)

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """See MapSource; in the order of the array."""
        return ((i, partial(self._read, i)) for i in sorted(sizes, key=self._numbers.__getitem__))

    def _read(self, image_id: str) -> Values:
        try:
            values = self._maps.read(self._numbers[image_id])
        except StoreError as error:
            raise StoreError(f"image {image_id}: {error}") from error
        return np.ascontiguousarray(self._map(values, image_id))

    def _map(self, values: Values, image_id: str) -> Values:
        return one_channel(values, self._channel, f"the map of {image_id} in {self._maps.path}")


def _zarr(path: Path, options: MapOptions) -> MapSource:
    return OwnMaps(path, options) if is_store(path) else ZarrStack(path, options)


def _found(path: Path) -> str:
    """The format of what lies there, by its names and first bytes."""
    if path.is_dir():
        if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
            return "zarr"
        suffixes = {entry.suffix.lower() for entry in path.iterdir() if not entry.name.startswith(".")}
        arrays, pictures = suffixes & set(map_arrays.SUFFIXES), suffixes & set(EXTENSIONS)
        if arrays and pictures:
            raise UsageError(
                f"{path} has pictures and numpy files: say with --format pictures or arrays which are maps"
            )
        return "arrays" if arrays else "pictures"
    name = path.name.lower()
    with open(path, "rb") as file:
        begin = file.read(8)
    if begin == b"\x89HDF\r\n\x1a\n" or name.endswith(map_hdf5.SUFFIXES):
        return "hdf5"
    if begin.startswith(b"\x93NUMPY") or name.endswith(map_arrays.SUFFIXES):
        return "stack"
    if name.endswith(TABLES):
        return "submission"
    raise UsageError(f"{path} is of no format that import knows: say with --format which of {', '.join(FORMATS)} it is")


FORMATS: Mapping[str, tuple[tuple[str, ...], Callable[[Path, MapOptions], MapSource]]] = {
    "pictures": ((), lambda path, _: MapFolder(path, deep=True)),
    "arrays": (("key", "channel"), lambda path, asked: ArrayFolder(path, asked.key, asked.channel)),
    "stack": (_STACKED, lambda path, asked: ArrayStack(path, asked.key, asked.channel, asked.ids)),
    "hdf5": (_STACKED, lambda path, asked: Hdf5Maps(path, asked.key, asked.channel, asked.ids)),
    "zarr": (_STACKED, _zarr),
    "submission": (("dialect",), lambda path, asked: Votes(path, asked.dialect or CARVANA)),
}
"""By name: the options that a format has, and what opens it."""
