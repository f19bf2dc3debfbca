"""A store at the address of an object store (``s3://bucket/name.zarr``, extra ``[s3]``).

Goes through obstore, which takes keys, region and endpoint from the environment (``AWS_ACCESS_KEY_ID``,
``AWS_REGION``, ``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP``, ...), and tries again what a cut connection or a busy server
ended.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

from carvana_ens.errors import StoreError, UsageError, first_line
from carvana_ens.store.lock import holder_named, holder_note, holder_state, token_in
from carvana_ens.store.place import UNFINISHED, ReadAt, Where, is_made

T = TypeVar("T")

RETRY: dict[str, Any] = {
    "max_retries": 6,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
    "retry_timeout": timedelta(seconds=30),
}
"""How often obstore sends a request again."""
TRIES, PATIENCE = 8, 20.0
"""How often, and for how many seconds, we ask again where obstore does not: answers cut in the middle, among others."""
_HINTS = {
    "builder error": "an endpoint of http takes AWS_ALLOW_HTTP=true",
    "169.254.169.254": "no keys were found, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
"""What to do, by words of obstore's errors that do not say it; the number is where machines of AWS ask for keys."""
_left: set[bytes] = set()
"""Notes of locks that this process has given up and could not remove."""


class Patience:
    """Whether to ask once more after an error."""

    def __init__(self) -> None:
        self._asked, self._until = 0, time.monotonic() + PATIENCE

    def ends(self) -> bool:
        """To be asked after each error; the first may be of a machine that slept."""
        self._asked += 1
        return self._asked >= TRIES or (self._asked > 1 and time.monotonic() > self._until)


def again(ask: Callable[[], T]) -> T:
    """What a function gives that asks obstore."""
    from obstore.exceptions import GenericError

    patience = Patience()
    while True:
        try:
            return ask()
        except GenericError:
            if patience.ends():
                raise


def told(error: BaseException) -> str:
    """What obstore raised, in one line: with the server's own word for it (of S3: its Code), and what to do."""
    line = first_line(error).partition(": <?xml")[0]
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return ", ".join([line, *([code[1]] if code else []), *(hint for words, hint in _HINTS.items() if words in line)])


class Bucket:
    """An address of an object store; see ``Place``."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            import obstore.exceptions
            import obstore.store
        except ImportError:
            raise UsageError(f"{url} is an address: pip install 'carvana-ens[s3]' to read and write it") from None
        self._obstore: Any = obstore
        self._not_found = (FileNotFoundError, obstore.exceptions.NotFoundError)
        self._above, _, self._name = self._url.rpartition("/")
        self._store = self._opened(self._url)

    def __str__(self) -> str:
        return self._url

    def _opened(self, url: str) -> Any:
        open_url: Any = self._obstore.store.from_url
        try:
            return open_url(url, retry_config=RETRY)
        except Exception as error:
            raise UsageError(
                f"{url} is no address of a store, such as s3://bucket/name.zarr: {first_line(error)}"
            ) from error

    @cached_property
    def _parent(self) -> Any:
        """Where the lock lies; a whole bucket, which has none, holds folders of stores and is none."""
        return self._opened(self._above)

    def get(self, key: str) -> bytes | None:
        return self._read(self._store, key)

    def put(self, key: str, content: bytes) -> None:
        with self._saying("written"):
            again(lambda: self._obstore.put(self._store, key, content))

    def ranges(self, key: str) -> ReadAt | None:
        with self._saying("read"):
            try:
                again(lambda: self._obstore.head(self._store, key))
            except self._not_found:
                return None

        def read_at(at: int, size: int) -> bytes:
            if not size:
                return b""
            with self._saying("read"):
                return again(lambda: bytes(self._obstore.get_range(self._store, key, start=at, length=size)))

        return read_at

    def zarr(self, *, read_only: bool) -> Any:
        from carvana_ens.store.bucket_zarr import PatientStore

        return PatientStore(self._store, read_only=read_only)

    def out_of_reach(self, error: BaseException) -> bool:
        return isinstance(error, (self._obstore.exceptions.BaseError, OSError))

    def exists(self) -> bool:
        return is_made(self.get("zarr.json"))

    def size(self) -> int:
        return sum(size for _, size in self._listed())

    def stores(self) -> list[Where]:
        return [url for url, begun in self._found() if not begun]

    def begun(self) -> list[Where]:
        return [url for url, begun in self._found() if begun]

    def create(self, fill: Callable[[Any], None]) -> None:
        """In place: until ``fill`` has ended, the group says of itself that it is unfinished."""
        self.remove()
        try:
            fill(self.zarr(read_only=False))
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"{self} cannot be made: {told(error)}") from error

    def remove(self) -> None:
        """Said to be unfinished first."""
        if self.get("zarr.json") is not None:
            unfinished = {"zarr_format": 3, "node_type": "group", "attributes": {UNFINISHED: True}}
            self.put("zarr.json", json.dumps(unfinished).encode())
        with self._saying("written"):
            keys = [key for key, _ in self._listed() if key != "zarr.json"]
            again(lambda: self._obstore.delete(self._store, [*keys, "zarr.json"]))

    def free(self) -> int | None:
        return None

    @contextmanager
    def lock(self, token: str = "") -> Iterator[None]:
        """An object beside the store, made only where there is none; a killed writer leaves it behind."""
        note = json.dumps(holder_note(token or uuid.uuid4().hex)).encode()
        self._take(note)
        try:
            yield
        except BaseException as error:
            try:
                self._release(note)
            except StoreError:
                _left.add(note)
                if isinstance(error, StoreError):
                    raise StoreError(f"{error}; its lock is left there, which --break-lock takes") from error
            raise
        self._release(note)

    def writer(self) -> str | None:
        return token_in(self._note())

    def break_lock(self) -> str | None:
        note = self._note()
        if note is None:
            return None
        if note not in _left and holder_state(note) == "running":
            raise StoreError(
                f"{self} is being written by {holder_named(note)}, and that process runs on this machine: wait for it "
                f"or stop it"
            )
        self._release(note)
        return holder_named(note)

    def _take(self, note: bytes) -> None:
        """Makes the lock's object. A request whose answer was lost may have made it, too."""
        for _ in range(TRIES):
            try:
                self._obstore.put(self._parent, f"{self._name}.lock", note, mode="create")
                return
            except Exception as error:  # noqa: BLE001  (whichever it is, what lies there decides)
                reason = error
            found = self._note()
            if found == note:
                return
            if found in _left:
                self._release(found)
            elif found is not None:
                raise StoreError(
                    f"{self} is being written by {holder_named(found)}: wait for it, or if it was killed give "
                    f"--break-lock, which deletes the object {self._url}.lock"
                )
        raise StoreError(f"{self} cannot be written: {told(reason)}") from reason

    def _release(self, note: bytes) -> None:
        """Removes the lock's object, unless somebody broke the lock meanwhile and it is another's."""
        if self._note() == note:
            with self._saying("written"):
                again(lambda: self._obstore.delete(self._parent, f"{self._name}.lock"))

    def _note(self) -> bytes | None:
        return self._read(self._parent, f"{self._name}.lock")

    def _read(self, store: Any, key: str) -> bytes | None:
        with self._saying("read"):
            try:
                return again(lambda: bytes(self._obstore.get(store, key).bytes()))
            except self._not_found:
                return None

    def _listed(self) -> list[tuple[str, int]]:
        """(key, bytes) of all objects."""
        with self._saying("read"):
            batches = again(lambda: list(self._obstore.list(self._store)))
        return [(str(entry["path"]), int(entry["size"])) for batch in batches for entry in batch]

    def _found(self) -> list[tuple[str, bool]]:
        """The addresses of stores in this folder, and whether they are unfinished, or no more than a lock."""
        with self._saying("read"):
            found = again(lambda: self._obstore.list_with_delimiter(self._store))
        stores = {folder.rstrip("/").rpartition("/")[2] for folder in found["common_prefixes"]}
        locks = {entry["path"].rpartition("/")[2].removesuffix(".lock") for entry in found["objects"]}
        begun = {name: name not in stores for name in sorted(stores | locks) if name.endswith(".zarr")}
        for name in stores & begun.keys():
            about = self._read(self._store, f"{name}/zarr.json")
            begun[name] = about is not None and not is_made(about)
        return [(f"{self._url}/{name}", unfinished) for name, unfinished in begun.items()]

    @contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # obstore raises many kinds
            raise StoreError(f"{self} cannot be {what}: {told(error)}") from error
