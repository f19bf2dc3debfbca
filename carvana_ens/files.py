"""Files that a stop cannot tear, and the hashes that say what a result came from.

Every file of ours is written under a temporary name in its own folder, synced, and renamed: a stop at any moment
leaves the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from carvana_ens.errors import CarvanaEnsError
from carvana_ens.types import Json

_TEMPORARY = re.compile(r"\.(?:.+\.([0-9a-f]{8})\.(\d+)|.+)\.[0-9a-f]{32}\.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    Raises:
        CarvanaEnsError: the folder cannot be made or written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        ours = {str(temporary), *map(str, path.parents)}
        if error.filename is not None and str(error.filename) not in ours:
            raise  # of another file that the block works with
        raise CarvanaEnsError(f"{path} cannot be written: {_reason(path, error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _reason(path: Path, error: OSError) -> str:
    # os.path, because pathlib raises where a folder above may not be looked into
    blocked = [folder for folder in path.parents if os.path.exists(folder) and not os.path.isdir(folder)]  # noqa: PTH110, PTH112
    return f"{blocked[0]} is a file, not a folder" if blocked else error.strerror or str(error)


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def left_behind(files: Iterable[Path]) -> list[Path]:
    """Those of these files that ``replacing`` was writing in a process of this machine that is gone."""
    return [path for path in files if (found := _TEMPORARY.fullmatch(path.name)) and _is_gone(*found.groups())]


def remove_left_behind(path: Path) -> None:
    """Removes what killed processes of this machine were writing to be ``path``."""
    with suppress(OSError):  # a folder that cannot be written: whoever writes next says so
        for left in left_behind(path.parent.glob(f".{escape(path.name)}.*.partial")):
            left.unlink(missing_ok=True)


def _is_gone(host: str | None, process: str | None) -> bool:
    """Whether a process has ended. host, process: None in names of earlier versions, which nobody writes any more."""
    if host is None or process is None:
        return True
    if host != _host():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def write_text(path: Path, text: str) -> None:
    """Replaces the file's text (UTF-8, line ends as given)."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, document: Json) -> None:
    """Replaces the file by an indented JSON document; keys keep their order."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def digest(document: Json) -> str:
    """sha256 (hex) of a JSON document, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
