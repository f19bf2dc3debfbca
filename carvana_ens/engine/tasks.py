"""Tasks for the workers of a cluster: a few under way at a time, tried again elsewhere when their worker ends.

What a task returns should be small and say what was done; what it made lies in files.

Dask gives the tasks of an ended worker to others. One whose workers have ended more often than its scheduler allows is
suspected (it may only have waited beside the one to blame): when all else is done it is cut into parts, and each is
tried while nothing else runs, so that whatever ends a worker then is to blame.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from carvana_ens.engine.cluster import PATIENCE, Cluster
from carvana_ens.engine.worker import Refused, Task
from carvana_ens.errors import CarvanaEnsError, first_line

POLL = 5.0
"""Seconds after which the workers are counted anew when nothing is finished."""
AHEAD = 2
"""Tasks a worker that are under way: one is worked on, one waits beside it."""
RETRIES = 2
"""How often a task that raises what is no error of ours is tried again: file systems of many machines stutter."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Died(Enum):
    """Stands for the result of a task that ended its workers even when nothing else ran."""

    DIED = "died"


DIED: Literal[Died.DIED] = Died.DIED


@dataclass(frozen=True)
class _Job(Generic[Item]):
    number: int
    item: Item


def unordered(
    cluster: Cluster,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    parts: Callable[[Item], Sequence[Item]],
) -> Iterator[tuple[Item, Result | Literal[Died.DIED]]]:
    """(item, result) of every item as they come.

    function: of a module, so that it travels by name. parts: cuts a suspected item into smaller ones, which then
    come out in its place; an item that cannot be cut comes out with ``DIED`` once it has ended its workers alone.

    Raises:
        CarvanaEnsError: the first one that a task raises; or scheduler or all workers are gone.
    """
    jobs = (_Job(number, item) for number, item in enumerate(items))
    for job, result in _results(cluster, function, jobs, parts):
        if isinstance(result, Refused):
            raise result.error
        yield job.item, result


def ordered(cluster: Cluster, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The result of every item in their order; what waits for its turn is bounded, whatever their number.

    Raises:
        CarvanaEnsError: what a task raises, where its result would have come; or what ``unordered`` raises of the
            cluster; or a task ends its workers.
    """
    done: dict[int, Result | Refused] = {}
    head = 0

    def jobs() -> Iterator[_Job[Item] | None]:
        for number, item in enumerate(items):
            while number >= head + 2 * AHEAD * max(1, cluster.count()):
                yield None  # not before the first that is still missing is there
            yield _Job(number, item)

    for job, result in _results(cluster, function, jobs(), lambda item: [item]):
        if isinstance(result, Died):
            raise CarvanaEnsError(
                f"a task ends every worker that it is given to, by a crash or in {cluster.limit:g} s without a result: "
                f"see the workers' logs"
            )
        done[job.number] = result
        while head in done:
            following = done.pop(head)
            if isinstance(following, Refused):
                raise following.error
            yield following
            head += 1


def _results(
    cluster: Cluster,
    function: Callable[[Item], Result],
    jobs: Iterator[_Job[Item] | None],
    parts: Callable[[Item], Sequence[Item]],
) -> Iterator[tuple[_Job[Item], Result | Refused | Literal[Died.DIED]]]:
    from distributed import KilledWorker

    task = Task(function, cluster.tell, cluster.stamp, cluster.limit, cluster.local)
    running: dict[Any, _Job[Item]] = {}
    finished: SimpleQueue[Any] = SimpleQueue()
    suspects: deque[_Job[Item]] = deque()

    def submit(job: _Job[Item]) -> None:
        future = cluster.client.submit(task, job.item, pure=False, retries=RETRIES)
        running[future] = job
        future.add_done_callback(finished.put)

    try:
        while True:
            window = AHEAD * max(1, cluster.count())
            while len(running) < window and (following := next(jobs, None)) is not None:
                submit(following)
            alone = not running
            if alone:
                if not suspects:
                    return
                submit(suspects.popleft())
            future = _next(cluster, finished)
            job = running.pop(future)
            error, result = _ended(cluster, future)
            if error is None:
                yield job, result
            elif isinstance(error, KilledWorker):
                cut = parts(job.item)
                if alone and len(cut) == 1:
                    yield job, DIED
                else:
                    suspects.extend(_Job(job.number, part) for part in cut)
            else:
                raise CarvanaEnsError(f"a worker failed with {type(error).__name__}: {first_line(error)}") from error
    finally:
        with contextlib.suppress(Exception):  # a scheduler that is gone has nothing to cancel
            cluster.client.cancel(list(running))


def _next(cluster: Cluster, finished: SimpleQueue[Any]) -> Any:
    """The next future that is finished; waits for it as long as there are workers."""
    seen = time.monotonic()
    while True:
        try:
            return finished.get(timeout=POLL)
        except Empty:
            if cluster.count():
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE:
                raise cluster.deserted() from None


def _ended(cluster: Cluster, future: Any) -> tuple[Exception | None, Any]:
    """The error of a future, and its result where there is none.

    A result is lost with its worker, and then made again: so this may wait, and find an error after all.
    """
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError

    while True:
        try:
            return None, future.result(timeout=PATIENCE)
        except (CancelledError, CommClosedError) as error:
            raise cluster.lost() from error
        except Exception as error:  # noqa: BLE001  (raised anew where it is known what it means)
            if not isinstance(error, TimeoutError) or future.status == "error":
                return error, None
            if not cluster.count():
                raise cluster.deserted() from None
