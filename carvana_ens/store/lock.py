"""One writer a store or checkpoint folder: a lock of the operating system, which ends with its process."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from filelock import FileLock, Timeout

from carvana_ens.errors import StoreError
from carvana_ens.files import write_json
from carvana_ens.types import Json

_ENDED = "ended"


class WriterLock:
    """Held while a folder is written; ``<folder>.writer.json`` beside it says by whom.

    The lock itself (``<folder>.lock``) is the operating system's, so a killed writer leaves none behind; the note may
    be left behind and means nothing without the lock.
    """

    def __init__(self, folder: Path, token: str = "") -> None:
        """token: names this writer to processes that write for it."""
        self._folder = folder
        self._token = token
        self._note = note_beside(folder)
        self._lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)

    def __enter__(self) -> WriterLock:
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            holder = holder_named(self._note.read_bytes() if self._note.is_file() else None)
            raise StoreError(f"{self._folder} is being written by {holder}: wait for it or stop it") from None
        except OSError as error:
            raise StoreError(f"{self._folder} cannot be written: {error.strerror or error}") from error
        write_json(self._note, holder_note(self._token))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()


def note_beside(folder: Path) -> Path:
    """Where the writer of a folder says who it is."""
    return folder.with_name(f"{folder.name}.writer.json")


def holder_note(token: str) -> dict[str, Json]:
    """Who holds a lock: host, process and time; token: the name that it gave itself for this one time.

    begun: tells the process from a later one of the same number; empty where the system cannot.
    """
    time, pid = datetime.now(UTC).isoformat(timespec="seconds"), os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "begun": _begun(pid), "time": time, "token": token}


def holder_state(note: bytes) -> Literal["running", "ended", "unknown"]:
    """What this machine knows of the process that wrote a note; of one on another host nothing."""
    try:
        holder = json.loads(note)
        pid, begun = int(holder["pid"]), str(holder.get("begun", ""))
        if os.name != "posix" or holder["host"] != socket.gethostname():
            return "unknown"
        os.kill(pid, 0)  # asks whether it is there; nothing is sent
    except ProcessLookupError:
        return "ended"
    except PermissionError:
        return "running"  # another user's
    except (ValueError, KeyError, TypeError, AttributeError, OSError, OverflowError):
        return "unknown"
    now = _begun(pid)
    another = begun and now and begun != now
    return "ended" if another or now == _ENDED else "running"


def _begun(pid: int) -> str:
    """When a process began, in ticks since which boot (proc(5)); of one that ended and was not waited for _ENDED."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return _ENDED if state in "ZX" else f"{boot} {fields[18]}"
    except (OSError, ValueError, IndexError):
        return ""


def holder_named(note: bytes | None) -> str:
    """Who wrote a note, in words."""
    try:
        found = json.loads(note or b"")
        return f"process {found['pid']} on {found['host']} since {found['time']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def token_in(note: bytes | None) -> str | None:
    """The token of who wrote a note; None where there is no note, or one without."""
    try:
        return str(json.loads(note or b"")["token"])
    except (ValueError, KeyError, TypeError):
        return None
