"""Where a store lies: a folder, or the address of an object store (``s3://bucket/name.zarr``, extra ``[s3]``)."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from carvana_ens.errors import StoreError
from carvana_ens.store.lock import WriterLock, note_beside, token_in

Where = str | Path
"""A folder, or the address of one as text (``s3://bucket/name.zarr``)."""
UNFINISHED = "carvana_ens_unfinished"
"""Attribute of a group that is being made or removed: no store to readers, and made anew by writers."""
ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> that many bytes from there, fewer where it ends; OSError or StoreError when it cannot be read."""


class Place(Protocol):
    """What reading and writing a store needs of where it lies; ``str`` gives path or address for messages."""

    def get(self, key: str) -> bytes | None:
        """The bytes under a key, None where there is none; OSError when it cannot be read."""

    def ranges(self, key: str) -> ReadAt | None:
        """Reads parts of what lies under a key, from several threads; None where there is nothing."""

    def put(self, key: str, content: bytes) -> None:
        """Writes what lies under a key: at any moment the old bytes are there or the new ones."""

    def zarr(self, *, read_only: bool) -> Any:
        """What ``zarr.open_group`` takes."""

    def out_of_reach(self, error: BaseException) -> bool:
        """Whether what zarr raised is about reaching this place, and not about what lies there."""

    def exists(self) -> bool:
        """Whether a store lies there, in whatever state; one that is being made or removed does not."""

    def size(self) -> int:
        """Bytes of all that lies there; 0 where there is nothing."""

    def stores(self) -> list[Where]:
        """The stores in this folder, in order of their names."""

    def begun(self) -> list[Where]:
        """Stores in this folder of which stops left something that is no store, whether one is there too or not."""

    def create(self, fill: Callable[[Any], None]) -> None:
        """Makes the store by ``fill``, so that a stop leaves a whole one or none that can be opened."""

    def remove(self) -> None:
        """Removes the store, whose lock must be held, so that a stop leaves a whole one or none that can be opened."""

    def free(self) -> int | None:
        """Bytes that can still be written there; None where nobody knows."""

    def lock(self, token: str = "") -> Any:
        """A context manager that keeps other writers out; while it is held, ``writer`` gives its token."""

    def writer(self) -> str | None:
        """The token of whoever holds the lock, or was killed while it did; None where nobody is known."""

    def break_lock(self) -> str | None:
        """Takes the lock from a writer that was killed, and says who that was; None where no lock is left.

        Raises:
            StoreError: the writer is at work, as far as this machine can know.
        """


def is_address(where: Where) -> bool:
    """Whether it is the address of an object store, and no folder."""
    return "://" in str(where)


def below(where: Where, *names: str) -> Where:
    """What lies in a folder, or under an address."""
    return "/".join((str(where).rstrip("/"), *names)) if is_address(where) else Path(where).joinpath(*names)


def absolute(where: Where) -> Where:
    """The same for processes that are in other folders."""
    return where if is_address(where) else Path(where).absolute()


def is_made(about: bytes | None) -> bool:
    """Whether a store's zarr.json (None: there is none) is of more than what a stop left of one in the making."""
    try:
        return about is not None and UNFINISHED not in json.loads(about)["attributes"]
    except (ValueError, KeyError, TypeError):
        return True  # not ours to make anew: opening it says what is wrong


def place_of(where: Where) -> Place:
    """The place of a path or an address.

    Raises:
        UsageError: an address, and the extra ``[s3]`` is not installed.
    """
    if is_address(where):
        from carvana_ens.store.bucket import Bucket

        return Bucket(str(where))
    return Folder(Path(where))


class _File:
    """An open file, read by place; closed with the last reference to it, since several threads may be reading."""

    def __init__(self, path: Path) -> None:
        self.handle = -1
        self.handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def __call__(self, at: int, size: int) -> bytes:
        return os.pread(self.handle, size, at)

    def __del__(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)


class Folder:
    """A folder of this machine, or of a file system that it shares."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def get(self, key: str) -> bytes | None:
        try:
            return (self._path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, key: str, content: bytes) -> None:
        """Writes a file of a store, as zarr does: under a temporary name beside it, renamed when it is whole."""
        path = self._path / key
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def ranges(self, key: str) -> ReadAt | None:
        try:
            return _File(self._path / key)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def zarr(self, *, read_only: bool) -> Any:  # noqa: ARG002  (the mode of open_group says it)
        return self._path

    def out_of_reach(self, error: BaseException) -> bool:
        return isinstance(error, OSError)

    def exists(self) -> bool:
        return self._path.exists()

    def size(self) -> int:
        total = 0
        for base, _, files in os.walk(self._path):
            for file in files:
                with suppress(OSError):  # it may have been a temporary one
                    total += (Path(base) / file).lstat().st_size
        return total

    def stores(self) -> list[Where]:
        return [*sorted(self._path.glob("*.zarr"))]

    def begun(self) -> list[Where]:
        hidden = (path.name.removeprefix(".").partition(".zarr.")[0] for path in self._path.glob(".*.zarr.*.partial*"))
        return [self._path / f"{name}.zarr" for name in sorted(set(hidden))]

    def create(self, fill: Callable[[Any], None]) -> None:
        """Under a temporary name, renamed when it is whole."""
        temporary = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}.partial")
        try:
            fill(temporary)
            temporary.rename(self._path)
        except OSError as error:
            raise StoreError(f"{self} cannot be made: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def remove(self) -> None:
        """Renamed first."""
        gone = self._path.with_name(f".{self._path.name}.removed.partial")
        shutil.rmtree(gone, ignore_errors=True)
        self._path.rename(gone)
        shutil.rmtree(gone)

    def free(self) -> int | None:
        with suppress(OSError):
            return shutil.disk_usage(self._path).free
        return None

    def lock(self, token: str = "") -> Any:
        return WriterLock(self._path, token)

    def writer(self) -> str | None:
        try:
            return token_in(note_beside(self._path).read_bytes())
        except FileNotFoundError:
            return None

    def break_lock(self) -> str | None:
        """None: the lock is the operating system's, and ends with its process."""
        if self._path.parent.exists():
            with self.lock():
                pass
        return None
