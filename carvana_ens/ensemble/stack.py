"""The maps of one image, of all members, in one array: what every kernel takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from carvana_ens.core.blend import StackedCodes
from carvana_ens.core.scratch import Scratch
from carvana_ens.core.spaces import SCALE, Table, look_up
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Codes


def check_tables(stores: Sequence[ProbabilityStore], tables: Sequence[Table]) -> None:
    """Refuses tables of a blending space, () for none, that are not for these stores.

    Raises:
        UsageError: tables for another number of stores.
        StoreError: a table that is not for the codes of its store.
    """
    if tables and len(tables) != len(stores):
        raise UsageError(f"{len(stores)} stores have {len(tables)} tables of a blending space: give one a store")
    for store, table in zip(stores, tables, strict=False):
        if table.size != store.full_scale + 1:
            raise StoreError(
                f"{store.path} has codes of 0..{store.full_scale}, its table in the blending space {table.size} "
                f"values: fit the space on maps of the same dtype"
            )


class MapStack:
    """Reads one image from several stores into memory that each thread uses again and again.

    full_scale: 255 if all stores are uint8, else 65535: then uint8 codes are multiplied by 257. With tables 65535.
    """

    def __init__(self, stores: Sequence[ProbabilityStore], tables: Sequence[Table] = ()) -> None:
        """stores: at least one, of the same images in the same sizes. tables: of a blending space, one a store; the
        codes read are then its values. () for the codes as they are.

        Raises:
            UsageError, StoreError: as ``check_tables`` says.
        """
        self._stores = tuple(stores)
        check_tables(stores, tables)
        self._tables = tuple(tables)
        self.full_scale = SCALE if tables else max(store.full_scale for store in stores)
        self._dtype = np.uint8 if self.full_scale == 255 else np.uint16
        self._scratch = Scratch()

    def read(self, image_id: str) -> StackedCodes:
        """(M, P) codes of the stores, P = H W pixels in row-major order; valid until this thread reads another image.

        Raises:
            StoreError: a map that is missing or damaged.
        """
        first = self._stores[0]
        size = first.sizes[first.index[image_id]]
        pixels = size.height * size.width
        stack: StackedCodes = self._scratch.array("stack", len(self._stores) * pixels, self._dtype).reshape(-1, pixels)
        tables = self._tables or (None,) * len(self._stores)
        rests = [
            self._begin(store, table, image_id, row.reshape(size))
            for store, table, row in zip(self._stores, tables, stack, strict=True)
        ]
        for rest in rests:
            rest()
        return stack

    def _begin(self, store: ProbabilityStore, table: Table | None, image_id: str, row: Codes) -> Callable[[], None]:
        if table is not None:
            return partial(self._look_up, store, table, image_id, row)
        if store.full_scale == self.full_scale:
            return store.begin(image_id, row)
        return partial(self._widen, store, image_id, row)

    def _widen(self, store: ProbabilityStore, image_id: str, row: Codes) -> None:
        narrow = self._narrow(row)
        store.read_into(image_id, narrow)
        np.multiply(narrow, self.full_scale // store.full_scale, out=row, dtype=self._dtype)

    def _look_up(self, store: ProbabilityStore, table: Table, image_id: str, row: Any) -> None:
        codes = row if store.full_scale == self.full_scale else self._narrow(row)
        store.read_into(image_id, codes)
        look_up(table, codes.reshape(-1), row.reshape(-1))

    def _narrow(self, row: Codes) -> Codes:
        narrow: Codes = self._scratch.array("narrow", row.size, np.uint8).reshape(row.shape)
        return narrow
