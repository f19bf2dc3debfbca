"""Reading parts of open files inside a kernel.

Python lets go of its lock and takes it again around each read: threads that read eight small parts an image wait for
the lock longer than for the bytes.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types as numba_types

from carvana_ens.core.jit import config, helper

types: Any = numba_types

POSSIBLE = hasattr(os, "pread") and not config.DISABLE_JIT
"""Whether ``read_part`` reads anything here."""

_pread: Any = types.ExternalFunction("pread", types.int64(types.int32, types.uintp, types.uintp, types.int64))
"""That of POSIX: (handle, address, size, place) -> octets read, 0 at the end of the file, -1 for an error."""


@helper
def _read_part(handle: Any, place: Any, out: Any, begin: Any, end: Any) -> Any:
    while begin < end:
        read = _pread(np.int32(handle), out.ctypes.data + np.uintp(begin), np.uintp(end - begin), place)
        if read <= 0:
            return False
        begin += read
        place += read
    return True


@helper
def _read_nothing(handle: Any, place: Any, out: Any, begin: Any, end: Any) -> Any:  # noqa: ARG001
    return False


read_part: Any = _read_part if POSSIBLE else _read_nothing
"""(handle, place, out, begin, end): reads from that place of an open file into out[begin:end], uint8; whether all of it
came. Where not, reading it from Python may still succeed, or says why not."""
