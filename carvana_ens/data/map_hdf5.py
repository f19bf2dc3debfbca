"""Maps in an HDF5 file: one dataset of all with their ids, or one dataset a map."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from carvana_ens.data.map_source import Kind, Values, checked_ids, kind_of, no_ids, one_channel, read_ids, stack_numbers
from carvana_ens.data.mask_source import unknown_id
from carvana_ens.errors import DataError, UsageError, first_line
from carvana_ens.types import Size

SUFFIXES = (".h5", ".hdf5", ".hdf")
_IDS = "ids"


class Hdf5Maps:
    """A stack (N, H, W) or (N, C, H, W) with a dataset ``ids``, or datasets (H, W) or (C, H, W) named by their ids.

    The file is opened once; h5py lets one thread read at a time.
    """

    def __init__(
        self, path: Path, key: str | None = None, channel: int | None = None, ids_file: Path | None = None
    ) -> None:
        """Finds the datasets.

        Args:
            path: the file.
            key: the dataset of all, or the group of one a map; None: the file's only dataset beside ``ids``, or its
                root.
            channel: see ``one_channel``.
            ids_file: one id a line, for a dataset of all; None: the dataset ``ids`` beside it.

        Raises:
            UsageError: h5py is not installed, or the ids are nowhere.
            DataError: no HDF5 file, nothing named ``key``, or ids that are not those of N maps.
        """
        self.path, self._channel = path, channel
        h5py = load_h5py()
        with _reading(path):
            self._file = h5py.File(path, "r")
            if key is not None and key not in self._file:
                raise DataError(f"{path} has no dataset or group {key!r}: it has {', '.join(self._file)}")
            home = self._file if key is None else self._file[key]
            if isinstance(home, h5py.Group):
                inside = {name: item for name, item in home.items() if isinstance(item, h5py.Dataset) and name != _IDS}
                if len(inside) != 1 or not (_IDS in home or ids_file is not None):
                    self._alone(inside)
                    return
                home = next(iter(inside.values()))
            self._stack = home
            ids = read_ids(ids_file) if ids_file is not None else self._ids_beside(home)
            self._numbers: dict[str, int] = stack_numbers(ids, home.shape, f"{path}, dataset {home.name}")

    def _alone(self, inside: dict[str, Any]) -> None:
        self._stack = None
        if not inside:
            raise DataError(
                f"{self.path} has no dataset there: say with --key which one, or which group, holds the maps"
            )
        ids = checked_ids(inside, str(self.path))
        self._maps = dict(zip(ids, inside.values(), strict=True))
        self._numbers = {image_id: number for number, image_id in enumerate(ids)}

    def _ids_beside(self, dataset: Any) -> tuple[str, ...]:
        if _IDS not in dataset.parent:
            raise no_ids(f"{self.path}, dataset {dataset.name}")
        return checked_ids(dataset.parent[_IDS][()].ravel().tolist(), f"{self.path}, dataset {_IDS}")

    @property
    def ids(self) -> tuple[str, ...]:
        """All image ids that have a map, sorted."""
        return tuple(sorted(self._numbers))

    @property
    def kind(self) -> Kind:
        """What the values are, by the first map."""
        dataset, _ = self._place(self.ids[0])
        return kind_of(dataset.dtype, f"{self.path}, dataset {dataset.name}")

    def size(self, image_id: str) -> Size:
        """See MapSource."""
        dataset, number = self._place(image_id)
        shape = dataset.shape if number is None else dataset.shape[1:]
        return Size(*self._map(np.broadcast_to(np.uint8(0), shape), image_id).shape)

    def each(self, sizes: Mapping[str, Size]) -> Iterator[tuple[str, Callable[[], Values]]]:
        """See MapSource; in the order of the file."""
        return ((i, partial(self._read, i)) for i in sorted(sizes, key=self._numbers.__getitem__))

    def _read(self, image_id: str) -> Values:
        dataset, number = self._place(image_id)
        with _reading(self.path):
            values = dataset[()] if number is None else dataset[number]
        return np.ascontiguousarray(self._map(values, image_id))

    def _place(self, image_id: str) -> tuple[Any, int | None]:
        if image_id not in self._numbers:
            raise unknown_id(image_id, str(self.path), self._numbers)
        return (self._maps[image_id], None) if self._stack is None else (self._stack, self._numbers[image_id])

    def _map(self, values: Values, image_id: str) -> Values:
        return one_channel(values, self._channel, f"the map of {image_id} in {self.path}")


def load_h5py() -> Any:
    """The package h5py.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise UsageError("HDF5 needs h5py: pip install 'carvana-ens[hdf5]'") from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as HDF5: {first_line(error)}; is the file whole?") from error
