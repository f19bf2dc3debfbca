"""The maps of one image, of all members, in one array: what every kernel takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from carvana_ens.core.blend import StackedCodes
from carvana_ens.core.scratch import Scratch
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Codes


class MapStack:
    """Reads one image from several stores into memory that each thread uses again and again.

    full_scale: 255 if all stores are uint8, else 65535: then uint8 codes are multiplied by 257.
    """

    def __init__(self, stores: Sequence[ProbabilityStore]) -> None:
        """stores: at least one, of the same images in the same sizes."""
        self._stores = tuple(stores)
        self.full_scale = max(store.full_scale for store in stores)
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
        rests = [
            self._begin(store, image_id, row.reshape(size)) for store, row in zip(self._stores, stack, strict=True)
        ]
        for rest in rests:
            rest()
        return stack

    def _begin(self, store: ProbabilityStore, image_id: str, row: Codes) -> Callable[[], None]:
        if store.full_scale == self.full_scale:
            return store.begin(image_id, row)
        return partial(self._widen, store, image_id, row)

    def _widen(self, store: ProbabilityStore, image_id: str, row: Codes) -> None:
        narrow = self._scratch.array("narrow", row.size, np.uint8).reshape(row.shape)
        store.read_into(image_id, narrow)
        np.multiply(narrow, self.full_scale // store.full_scale, out=row, dtype=self._dtype)
