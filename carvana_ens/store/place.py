"""Where a store lies: a folder, or the address of an object store (``s3://bucket/name.zarr``, extra ``[s3]``).

Addresses go through obstore, which takes keys, region and endpoint from the environment (``AWS_ACCESS_KEY_ID``,
``AWS_REGION``, ``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP``, ...).
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from carvana_ens.errors import StoreError, UsageError, first_line
from carvana_ens.store.lock import WriterLock, holder_named, holder_note, note_beside, token_in

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> that many bytes from there, fewer where it ends; OSError or StoreError when it cannot be read."""


class Place(Protocol):
    """What reading and writing a store needs of where it lies; ``str`` gives path or address for messages."""

    def get(self, key: str) -> bytes | None:
        """The bytes under a key, None where there is none; OSError when it cannot be read."""

    def ranges(self, key: str) -> ReadAt | None:
        """Reads parts of what lies under a key, from several threads; None where there is nothing."""

    def zarr(self, *, read_only: bool) -> Any:
        """What ``zarr.open_group`` takes."""

    def create(self, fill: Callable[[Any], None]) -> None:
        """Makes the store by ``fill``, so that a stop leaves a whole one or none that can be opened."""

    def free(self) -> int | None:
        """Bytes that can still be written there; None where nobody knows."""

    def lock(self, token: str = "") -> Any:
        """A context manager that keeps other writers out; while it is held, ``writer`` gives its token."""

    def writer(self) -> str | None:
        """The token of whoever holds the lock, or was killed while it did; None where nobody is known."""


def place_of(where: str | Path) -> Place:
    """The place of a path or an address.

    Raises:
        UsageError: an address, and the extra ``[s3]`` is not installed.
    """
    return Bucket(str(where)) if "://" in str(where) else Folder(Path(where))


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


class Bucket:
    """An address of an object store."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            import obstore.store
        except ImportError:
            raise UsageError(f"{url} is an address: pip install 'carvana-ens[s3]' to read and write it") from None
        parent, _, self._name = self._url.rpartition("/")
        try:
            self._store = obstore.store.from_url(self._url)
            self._parent = obstore.store.from_url(parent)
        except Exception as error:
            raise UsageError(
                f"{url} is no address of a store, such as s3://bucket/name.zarr: {first_line(error)}"
            ) from error

    def __str__(self) -> str:
        return self._url

    def get(self, key: str) -> bytes | None:
        import obstore
        import obstore.exceptions

        try:
            return bytes(obstore.get(self._store, key).bytes())
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return None
        except Exception as error:
            raise StoreError(f"{self} cannot be read: {first_line(error)}") from error

    def ranges(self, key: str) -> ReadAt | None:
        import obstore
        import obstore.exceptions

        try:
            obstore.head(self._store, key)
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return None
        except Exception as error:
            raise StoreError(f"{self} cannot be read: {first_line(error)}") from error

        def read_at(at: int, size: int) -> bytes:
            try:
                return bytes(obstore.get_range(self._store, key, start=at, length=size)) if size else b""
            except Exception as error:
                raise StoreError(f"{self} cannot be read: {first_line(error)}") from error

        return read_at

    def zarr(self, *, read_only: bool) -> Any:
        from zarr.storage import ObjectStore

        return ObjectStore(self._store, read_only=read_only)

    def create(self, fill: Callable[[Any], None]) -> None:
        """In place: until ``fill`` has ended, the group says of itself that it is unfinished."""
        try:
            fill(self.zarr(read_only=False))
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"{self} cannot be made: {first_line(error)}") from error

    def free(self) -> int | None:
        return None

    @contextmanager
    def lock(self, token: str = "") -> Iterator[None]:
        """An object beside the store, made only where there is none; a killed writer leaves it behind."""
        import obstore
        import obstore.exceptions

        name = f"{self._name}.lock"
        try:
            obstore.put(self._parent, name, json.dumps(holder_note(token)).encode(), mode="create")
        except (FileExistsError, obstore.exceptions.AlreadyExistsError):
            raise StoreError(
                f"{self} is being written by {holder_named(self._note())}: wait for it, or if it was killed delete the "
                f"object {self._url}.lock"
            ) from None
        except Exception as error:
            raise StoreError(f"{self} cannot be written: {first_line(error)}") from error
        try:
            yield
        finally:
            obstore.delete(self._parent, name)

    def writer(self) -> str | None:
        return token_in(self._note())

    def _note(self) -> bytes | None:
        import obstore
        import obstore.exceptions

        try:
            return bytes(obstore.get(self._parent, f"{self._name}.lock").bytes())
        except (FileNotFoundError, obstore.exceptions.NotFoundError):
            return None
        except Exception as error:
            raise StoreError(f"{self} cannot be read: {first_line(error)}") from error
