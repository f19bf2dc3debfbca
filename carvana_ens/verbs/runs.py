"""runs/*.json: what differs from run to run (times, hosts, versions), kept apart from results."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from carvana_ens import __version__
from carvana_ens.files import write_json
from carvana_ens.project import Project


@contextmanager
def recorded(project: Project, verb: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Writes ``runs/<time>-<verb>.json`` when the block ends without an error; the block may add to the record."""
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
    write_json(project.root / "runs" / f"{started.strftime('%Y%m%dT%H%M%S%f')}-{verb}.json", record)
