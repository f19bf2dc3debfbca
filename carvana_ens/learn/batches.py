"""How many photos a network is given at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from carvana_ens.errors import CarvanaEnsError
from carvana_ens.learn.torch_model import TorchModel
from carvana_ens.learn.units import BLOCK, Batches
from carvana_ens.types import Size

CPU_PIXELS = 2**18
"""Pixels of a batch on a CPU: more are not faster, and take memory."""
GPU_PIXELS = 2**24
"""Likewise elsewhere."""
SHARE = 0.6
"""Of a CUDA device's memory that a batch may take: what a network needs is measured on a small picture."""
PROBE = Size(512, 512)


class BatchSizes:
    """Batches by the grid that a network is given: powers of two, the same on every device of a kind.

    They follow from the network, the grid and the device's whole memory, not from what of it is free just now: a map
    may depend on its batch in the last bits.
    """

    def __init__(self, models: Sequence[TorchModel], known: Batches) -> None:
        """models: loaded on one device. known: what is found out is kept there."""
        self._models, self._device, self._known = models, models[0].device, known
        if known.given is None and known.pixels is None:
            known.pixels = self._room()

    def of(self, grid: Size) -> int:
        """Photos of a batch."""
        known = self._known
        if known.given is not None:
            return min(known.given, known.most or known.given)
        fitting = max(1, (known.pixels or 0) // (grid.height * grid.width))
        return min(known.most or BLOCK, 1 << fitting.bit_length() - 1)

    def lower(self, batch: int) -> int:
        """What batches are at most from now on, after one of this many was too much: half of it, or the next power
        of two above that. 0: there is nothing below.
        """
        if batch == 1:
            return 0
        self._known.most = 1 << (batch - 1).bit_length() - 1
        return self._known.most

    def _room(self) -> int:
        """Pixels of a batch."""
        if self._device.type != "cuda":
            return CPU_PIXELS if self._device.type == "cpu" else GPU_PIXELS
        _, memory = torch.cuda.mem_get_info(self._device)
        network = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            self._models[0].answer(torch.zeros((1, *PROBE, 3), dtype=torch.uint8, device=self._device))
        except (CarvanaEnsError, RuntimeError):  # a network of other grids: batches are lowered if they are too large
            return GPU_PIXELS
        each = (torch.cuda.max_memory_allocated(self._device) - network) / (PROBE.height * PROBE.width)
        return min(GPU_PIXELS, int((SHARE * memory - network) / max(each, 1)))
