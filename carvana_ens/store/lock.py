"""One writer a store or checkpoint folder: a lock of the operating system, which ends with its process."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from carvana_ens.errors import StoreError
from carvana_ens.files import write_json


class WriterLock:
    """Held while a folder is written; ``<folder>.writer.json`` beside it says by whom.

    The lock itself (``<folder>.lock``) is the operating system's, so a killed writer leaves none behind; the note may
    be left behind and means nothing without the lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._note = folder.with_name(f"{folder.name}.writer.json")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)

    def __enter__(self) -> WriterLock:
        try:
            self._lock.acquire()
        except Timeout:
            raise StoreError(f"{self._folder} is being written by {self._holder()}: wait for it or stop it") from None
        write_json(
            self._note,
            {"host": socket.gethostname(), "pid": os.getpid(), "time": datetime.now(UTC).isoformat(timespec="seconds")},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()

    def _holder(self) -> str:
        try:
            note = json.loads(self._note.read_text())
            return f"process {note['pid']} on {note['host']} since {note['time']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
