"""Work in this process, on a pool of threads that keeps the order.

Our kernels, the codecs and the file reads all release the interpreter lock, so threads are enough on one machine.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_threads() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, batch: int = 1
) -> Iterator[Result]:
    """Results in the order of ``items``; at most 2 batches a thread are under way, so memory does not grow with them.

    batch: items a task; handing out a task costs about 10 us, which matters beside items of a millisecond. The first
    error stops the work after the items that run, and is raised where its result would have come.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    stopped = threading.Event()

    def work(part: list[Item]) -> tuple[list[Result], BaseException | None]:
        """Results up to the first error, and that error."""
        results: list[Result] = []
        try:
            for item in part:
                if stopped.is_set():
                    break
                results.append(function(item))
        except BaseException as error:  # noqa: BLE001  (raised anew where the results are taken)
            return results, error
        return results, None

    parts = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[tuple[list[Result], BaseException | None]]] = deque()
        try:
            while part := list(islice(parts, batch)):
                waiting.append(pool.submit(work, part))
                if len(waiting) >= 2 * threads:
                    yield from _taken(waiting.popleft())
            while waiting:
                yield from _taken(waiting.popleft())
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _taken(future: Future[tuple[list[Result], BaseException | None]]) -> Iterator[Result]:
    results, error = future.result()
    yield from results
    if error is not None:
        raise error
