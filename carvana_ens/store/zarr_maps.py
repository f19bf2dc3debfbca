"""Maps in a zarr that is no probability store of ours: one array of all, version 2 or 3, with the ids beside it.

zarr reads zeros where a chunk is missing, and leaves chunks of zeros out when it writes: a lost map looks like one of
background. So every chunk must be there.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from carvana_ens.errors import StoreError, UsageError, first_line

_IDS = "ids"


class ZarrMaps:
    """The array of a zarr, (N, H, W) or with more axes, and the texts beside it; what they mean is the caller's.

    array: anything that is indexed by the number of the image. shape, dtype: of the array. ids: N texts as they are
    stored, None where there are none.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        """Opens the array.

        Args:
            path: a group or an array.
            key: the array's path in its group; None: the only one with three axes or more.

        Raises:
            StoreError: no zarr there, no such array, or one whose missing chunks could not be told (shards).
            UsageError: several arrays of which none is chosen.
        """
        self.path = path
        try:
            found = zarr.open(path, mode="r")
        except Exception as error:  # zarr raises many kinds
            raise StoreError(f"{path} cannot be opened as zarr: {first_line(error)}") from error
        group = None if isinstance(found, zarr.Array) else found
        self.array: Any = found if group is None else _chosen(group, key, path)
        array: Any = self.array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: Any = array.dtype
        if array.shards is not None:
            raise StoreError(f"{path} is sharded, and a shard does not tell lost maps from zeros: rewrite it in chunks")
        self.ids: list[Any] | None = None
        if group is not None and _IDS in group:
            self.ids = _ids(group[_IDS], path)

    def read(self, number: int) -> NDArray[Any]:
        """``array[number]``; may be called from several threads.

        Raises:
            StoreError: a chunk is missing or damaged.
        """
        try:
            self._check_there(number)
            values: NDArray[Any] = np.asarray(self.array[number])
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"{self.path}: map {number} cannot be read ({first_line(error)})") from error
        return values

    def _check_there(self, number: int) -> None:
        array = self.array
        counts = [-(-side // chunk) for side, chunk in zip(array.shape[1:], array.chunks[1:], strict=True)]
        store = array.store_path.store
        for place in itertools.product(*map(range, counts)):
            chunk = array.metadata.encode_chunk_key((number // array.chunks[0], *place))
            if not sync(store.exists(f"{array.path}/{chunk}".lstrip("/"))):
                raise StoreError(
                    f"{self.path}: map {number} lacks the chunk {chunk}, which zarr would read as zeros: if it is "
                    f"background, write the array anew with config={{'write_empty_chunks': True}}"
                )


def is_store(path: Path) -> bool:
    """Whether what lies there says that it is a probability store of ours."""
    try:
        about = json.loads((path / "zarr.json").read_bytes())
        return "carvana_ens" in about["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _chosen(group: zarr.Group, key: str | None, path: Path) -> Any:
    if key is not None:
        if key not in group or not isinstance(group[key], zarr.Array):
            raise StoreError(f"{path} has no array {key!r}: it has {', '.join(sorted(group.array_keys()))}")
        return group[key]
    stacks = {name: array for name, array in group.arrays() if len(array.shape) >= 3}
    if len(stacks) != 1:
        names = ", ".join(sorted(stacks)) or "none"
        raise UsageError(f"{path} has {len(stacks)} arrays of maps ({names}): say with --key which one")
    return next(iter(stacks.values()))


def _ids(found: Any, path: Path) -> list[Any]:
    try:
        return np.asarray(found[...]).ravel().tolist()
    except Exception as error:
        raise StoreError(f"{path}: array {_IDS} cannot be read ({first_line(error)})") from error
