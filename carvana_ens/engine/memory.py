"""How processes keep memory that was freed, so that the system does not clear it anew for every photo."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
"""glibc's numbers for mallopt."""
_KEEPING = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
"""-1: a threshold that nothing reaches."""
_USUAL = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 1 << 25), (_TRIM_THRESHOLD, 1 << 26))
"""What glibc's own moving thresholds come to with large blocks; the arenas stay as they are."""


def keep_freed_memory() -> bool:
    """Has the memory of a photo kept for the next one, where the C library is glibc; whether it is.

    By default large blocks go back to the system as soon as they are freed, and it clears them page by page when they
    are asked for again: with a network at full size on a CPU that is a third of the time. Threads to come share one
    arena, since glibc keeps no block above 64 MiB in any but the first. What the user has set by MALLOC_... or
    GLIBC_TUNABLES stays.
    """
    if _chosen() or not _glibc():
        return False
    return _set(_KEEPING)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """``keep_freed_memory`` until the end; what is free is given back then."""
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            _set(_USUAL)
            ctypes.CDLL(None).malloc_trim(0)


def keeping_environment() -> dict[str, str]:
    """Environment variables that have a process to come keep its memory from the start."""
    if _chosen():
        return {}
    return {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}


def _set(values: Sequence[tuple[int, int]]) -> bool:
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(number, value) for number, value in values)


def _chosen() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


def _glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
