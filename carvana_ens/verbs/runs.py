"""runs/*.json: what differs from run to run (times, hosts, versions), kept apart from results."""

from __future__ import annotations

import errno
import os
import platform
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from carvana_ens import __version__
from carvana_ens.errors import CarvanaEnsError
from carvana_ens.files import write_json
from carvana_ens.project import Project

_TIME = "%Y%m%dT%H%M%S%f"
_NAME = re.compile(r"\d{8}T\d{12}-")


@contextmanager
def recorded(project: Project, verb: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Writes ``runs/<time>-<process>-<verb>.json`` when the block ends without an error, which may add to the record.

    The time in the name is that of its end; names sort in the order of the runs, whatever the clock was set to. A
    project that may only be read gets no record: what was asked for is done.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    record: dict[str, Any] = {"verb": verb, **facts}
    yield record
    record |= {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 3),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "carvana_ens": __version__,
    }
    folder = project.root / "runs"
    try:
        write_json(folder / f"{_next(folder)}-{os.getpid()}-{verb}.json", record)
    except CarvanaEnsError as error:
        if getattr(error.__cause__, "errno", None) not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def _next(folder: Path) -> str:
    """The time, or what comes next after the last record where the clock is behind that."""
    now = datetime.now(UTC).strftime(_TIME)
    last = max((path.name.partition("-")[0] for path in folder.glob("*.json") if _NAME.match(path.name)), default="")
    if now > last:
        return now
    return (datetime.strptime(last, _TIME) + timedelta(microseconds=1)).strftime(_TIME)
