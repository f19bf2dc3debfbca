"""Buffers that a thread uses again and again: fresh ones of a map's size cost as much in page faults as decoding."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


class Buffers(threading.local):
    """Each thread's own arrays by use; they grow as asked and end with the thread or this object."""

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def get(self, use: str, count: int, dtype: DTypeLike = np.uint8) -> Any:
        """(count,) of the dtype, of any content; the same memory at each call of a thread for the same use."""
        wanted = count * np.dtype(dtype).itemsize
        held = self._held.get(use)
        if held is None or held.size < wanted:
            self._held[use] = held = np.empty(wanted, np.uint8)
        return held[:wanted].view(dtype)
