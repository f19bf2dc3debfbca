"""How this process keeps memory that was freed."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's numbers for mallopt."""
KEPT = 2**29
"""Bytes that stay with the process when they are freed."""
LARGEST = 2**25
"""Bytes of the largest block that is kept so: the most that glibc takes."""


def keep_freed_memory() -> bool:
    """Has the memory of a photo kept for the next one, where the C library is glibc; whether it is.

    By default it goes back to the system, which clears it page by page when it is asked for again: a quarter of the
    processor time outside the network in prediction. What the user has set by MALLOC_... or GLIBC_TUNABLES stays.
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_TRIM_THRESHOLD, KEPT) and library.mallopt(_MMAP_THRESHOLD, LARGEST))
