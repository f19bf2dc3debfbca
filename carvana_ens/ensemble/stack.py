"""The maps of one image, of all members, in one array: what every kernel takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from carvana_ens.core.blend import StackedCodes
from carvana_ens.core.scratch import Scratch
from carvana_ens.store.store import ProbabilityStore


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
        for store, codes in zip(self._stores, stack, strict=True):
            row = codes.reshape(size)
            step = self.full_scale // store.full_scale
            if step == 1:
                store.read_into(image_id, row)
            else:
                narrow = self._scratch.array("narrow", pixels, np.uint8).reshape(size)
                store.read_into(image_id, narrow)
                np.multiply(narrow, step, out=row, dtype=self._dtype)
        return stack
