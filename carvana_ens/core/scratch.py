"""Memory that each thread uses again and again: the page faults of fresh arrays cost as much as the work in them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np


class Scratch(threading.local):
    """Arrays by name, each thread its own, valid until the same name is asked for again."""

    def __init__(self) -> None:
        self._arrays: dict[str, Any] = {}

    def array(self, name: str, size: int, dtype: Any) -> Any:
        """(size,) of dtype, with whatever was left in it; one name keeps one dtype."""
        found = self._arrays.get(name)
        if found is None or found.size < size:
            found = self._arrays[name] = np.empty(size, dtype)
        return found[:size]
