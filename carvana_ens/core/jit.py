"""How kernels are compiled, where their machine code is kept, and what happens when that place is broken.

numba keeps compiled kernels as pickles, so they must lie where nobody else writes; it refuses at import where it finds
no writable place, and once a cache file is damaged it fails at every later run. Here the place is chosen and checked
first, and a kernel whose cache fails is compiled anew. Set ``CARVANA_ENS_CACHE`` to choose the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
import platformdirs
from numba.core.errors import NumbaError

from carvana_ens import __version__

config: Any = numba.config
"""numba's settings; they are attributes made at run time."""

_njit: Any = numba.njit

F = TypeVar("F", bound=Callable[..., Any])

_lock = threading.Lock()

_TROUBLE = (
    # What reading or writing a damaged, vanished or full cache raises; a damaged pickle can end in nearly anything.
    pickle.PickleError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _key() -> str:
    """Names the folder of one state of our kernels: numba itself notices neither new flags nor all edits."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    flags = f"{config.BOUNDSCHECK} {config.OPT} {config.DEBUGINFO_DEFAULT}"
    digest = hashlib.sha256(code + flags.encode()).hexdigest()[:16]
    python = f"{sys.implementation.name}{sys.version_info.major}{sys.version_info.minor}"
    return f"{__version__}-{python}-numba{numba.__version__}-{digest}"


def _parents() -> Iterator[Path]:
    chosen = os.environ.get("CARVANA_ENS_CACHE")
    if chosen:
        yield Path(chosen).absolute()
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home folder
        yield Path(platformdirs.user_cache_dir("carvana-ens")) / "kernels"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    with contextlib.suppress(OSError):  # no temporary folder
        temporary = Path(tempfile.gettempdir()) / f"carvana-ens-{user}"
        if _private(temporary):  # anybody may have put something there first
            yield temporary


def _private(folder: Path) -> bool:
    """Whether the folder is a real one of this user that nobody else may write; makes it if it is missing."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode):
            return False
        if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o022):
            return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _find_folder() -> Path | None:
    try:
        key = _key()
    except OSError:  # no source beside the bytecode: nothing to key the cache by
        return None
    return next((parent / key for parent in _parents() if _private(parent / key)), None)


FOLDER: Path | None = None if config.DISABLE_JIT else _find_folder()
"""Where compiled kernels are kept; None: nowhere, so that each process compiles what it uses."""


def kernel(function: F) -> F:
    """Compiles a function on its first call per set of types, without the GIL, and keeps the code in ``FOLDER``.

    ``numba.config.CACHE_DIR`` says where while the kernel is declared, and is put back: other libraries' kernels, and
    a user's ``NUMBA_CACHE_DIR``, stay where they are.
    """
    if FOLDER is not None:
        with _lock:
            before = config.CACHE_DIR
            config.CACHE_DIR = str(FOLDER)
            try:
                return _njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
            except (OSError, RuntimeError):  # the folder went away, or numba was told to look elsewhere
                pass
            finally:
                config.CACHE_DIR = before
    return _njit(nogil=True)(function)  # type: ignore[no-any-return]


def helper(function: F) -> F:
    """Compiles a function that only kernels call; its code is kept inside theirs."""
    return _njit(nogil=True)(function)  # type: ignore[no-any-return]


def run(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a kernel. A broken cache is emptied once; if that does not help, the kernel does without."""
    try:
        return function(*args)
    except NumbaError:
        raise
    except _TROUBLE:
        cache = getattr(function, "_cache", None)
        if FOLDER is None or cache is None:
            raise
        _empty(FOLDER)
    try:
        return function(*args)
    except _TROUBLE:
        cache.disable()
    return function(*args)


def _empty(folder: Path) -> None:
    """Removes the files and keeps the folders, which another process may be writing into."""
    with _lock, contextlib.suppress(OSError):
        for path in folder.rglob("*.nb[ci]"):
            path.unlink(missing_ok=True)
