"""Workers of this machine (--workers) beside Dask's own and Python's pool of processes, as many of each.

    python tests/benchmarks/bench_workers.py 2 8 32

Prints, for each number: seconds until all answer, the processors that all of them take up while nothing is to be done,
milliseconds a task that does nothing (of TASKS, submitted all at once; ours go out a few at a time), and seconds until
all have ended.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import psutil
from distributed import Client, LocalCluster

from carvana_ens.engine.cluster import Workers, connected
from carvana_ens.engine.tasks import ordered

TASKS = 500
WAITING = 10.0
Run = Callable[[int], int]


def versions() -> str:
    return "the same"


def task(number: int) -> int:
    return number


def ready(_: int) -> int:
    """Lasts until the others have started, too."""
    time.sleep(0.2)
    return psutil.Process().pid


@contextmanager
def ours(count: int) -> Iterator[Run]:
    with connected(Workers(count=count), versions) as cluster:
        yield lambda tasks: len(list(ordered(cluster, task, range(tasks))))


@contextmanager
def dasks(count: int) -> Iterator[Run]:
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(count)
        yield lambda tasks: len(client.gather(client.map(task, range(tasks), pure=False)))


@contextmanager
def pythons(count: int) -> Iterator[Run]:
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        while len(set(pool.map(ready, range(count)))) < count:
            pass
        yield lambda tasks: len(list(pool.map(task, range(tasks))))


def processor_time() -> float:
    """Seconds, of this process and all that it has started."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in [me, *me.children(recursive=True)])


def measured(way: Callable[[int], object], count: int) -> tuple[float, float, float, float]:
    start = time.perf_counter()
    with way(count) as run:  # type: ignore[attr-defined]
        began = time.perf_counter() - start
        assert run(count) == count
        time.sleep(1)
        before, start = processor_time(), time.perf_counter()
        time.sleep(WAITING)
        waiting = (processor_time() - before) / (time.perf_counter() - start)
        start = time.perf_counter()
        assert run(TASKS) == TASKS
        each = (time.perf_counter() - start) / TASKS * 1000
        start = time.perf_counter()
    return began, waiting, each, time.perf_counter() - start


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [2, 8, 32]
    print(f"{'workers':28}{'ready s':>9}{'waiting':>9}{'ms a task':>11}{'ended s':>9}")
    for count in counts:
        for name, way in (("--workers", ours), ("dask's LocalCluster", dasks), ("ProcessPoolExecutor", pythons)):
            began, waiting, each, ended = measured(way, count)
            print(f"{count:3} {name:24}{began:9.1f}{waiting:9.2f}{each:11.2f}{ended:9.1f}", flush=True)


if __name__ == "__main__":
    main()
