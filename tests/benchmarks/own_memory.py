"""A process's own memory while it works: what it asked for itself, without the page cache and mapped files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.05
"""Seconds between two readings."""


@dataclass
class Watched:
    """Bytes: at the start, and the most that was read since."""

    start: int
    peak: int


def anonymous() -> int:
    """Bytes of this process's own memory (RssAnon); on Linux alone."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise SystemExit("this system does not tell RssAnon: run on Linux")


@contextmanager
def watched() -> Iterator[Watched]:
    """Reads the memory again and again while the block runs."""
    start = anonymous()
    found, over = Watched(start, start), threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            found.peak = max(found.peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found.peak = max(found.peak, anonymous())
