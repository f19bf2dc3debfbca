"""What the tests send to workers; copied into a folder that these can import from."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from carvana_ens.engine.worker import alive, kept, threads_here
from carvana_ens.errors import DataError


def same():
    return "these versions"


def other():
    return f"version {os.getpid()}"


def only_here():
    if multiprocessing.parent_process() is not None:
        raise ImportError("not on a worker")
    return "here"


def squared(number):
    return number * number


def surroundings(number):
    time.sleep(0.05)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), threads_here()


def deadly(numbers):
    """numbers: a tuple; 7 ends the worker, 9 hangs."""
    if 7 in numbers:
        os._exit(1)
    if 9 in numbers:
        time.sleep(1000)
    return sum(numbers)


def patient(number):
    """Longer than a limit of a second in all, never between two signs of life."""
    for _ in range(8):
        time.sleep(0.25)
        alive()
    return number


def refusing(number):
    if number == 3:
        raise DataError("three is refused")
    return number


def refusing_two(number):
    """The later one at once, the earlier one after a while."""
    if number == 1:
        time.sleep(0.5)
    if number in (1, 3):
        raise DataError(f"{number} is refused")
    return number


def stuttering(where):
    """Fails as file systems do until it has been called ``times`` times. where: (folder, times)."""
    folder, times = where
    before = len(list(Path(folder).iterdir()))
    (Path(folder) / str(time.time_ns())).touch()
    if before < times:
        raise OSError(5, "Input/output error")
    return before


def loading(item):
    """item: (folder, key); a file in the folder for each load."""
    folder, key = item

    def load():
        (Path(folder) / f"{key}-{os.getpid()}-{time.time_ns()}").touch()
        return key.upper()

    return kept(key, load), os.getpid()
