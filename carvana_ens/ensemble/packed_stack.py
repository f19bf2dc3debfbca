"""The blend of packed stores, which reads the parts of each map that can matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.packed import HotPartError, PackedBlend
from carvana_ens.core.scratch import Scratch
from carvana_ens.store.chunks import ChunkError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Bits, Codes, Size

_scratch = Scratch()


class PackedStack:
    """The masks of one picture after the other from packed stores; may be used from several threads.

    stores: packed, of the same images in the same sizes. weights: (M,) uint32. cut_sum, full_scale: as for
    ``blend_bits``; ``core.packed.can_blend`` must hold.
    """

    def __init__(
        self, stores: Sequence[ProbabilityStore], weights: NDArray[np.uint32], cut_sum: int, full_scale: int
    ) -> None:
        self._stores = tuple(stores)
        self._readers = [store.packed for store in stores if store.packed is not None]
        self._blend = PackedBlend(weights, [reader.dtype for reader in self._readers], cut_sum, full_scale)

    def bits(self, image_id: str) -> Bits:
        """The mask of one image as bit words; valid until this thread asks for another.

        Raises:
            StoreError: a map that is gone or damaged; names store and id.
        """
        number = self._stores[0].index[image_id]
        height, width = self._stores[0].sizes[number]
        member = 0

        def cold(which: int, places: NDArray[np.int64]) -> Codes:
            nonlocal member
            member = which
            chunk, entry = found[which]
            return chunk.read_cold(entry, places)

        try:
            found = []
            starts = np.zeros(len(self._readers) + 1, np.int64)
            for member, reader in enumerate(self._readers):
                chunk, entry = reader.find(number, Size(height, width))
                if entry.codes_crc != self._stores[member].record(image_id):
                    raise ChunkError("is another's (its checksum is not that of the done record)")
                found.append((chunk, entry))
                starts[member + 1] = starts[member] + chunk.hot_words(entry)
            buffer = _scratch.array("hot parts", int(starts[-1]), np.uint64)
            for member, (chunk, entry) in enumerate(found):
                chunk.read_hot(entry, buffer[starts[member] : starts[member + 1]])
            words = np.array([entry.words for _, entry in found])
            return self._blend.bits(buffer, starts[:-1], words, height * width, cold)
        except ChunkError as error:
            raise self._stores[member].explain(image_id, error) from error
        except HotPartError as error:
            broken = ChunkError("does not decode (its hot part)")
            raise self._stores[error.member].explain(image_id, broken) from error
