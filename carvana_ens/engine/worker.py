"""What runs in a worker process: one task at a time, under a limit of time, with what is loaded kept for the next.

A worker that finishes nothing for the limit of seconds ends itself, by a timer that needs no interpreter, so that code
which never lets go of it is ended too; one of a scheduler elsewhere leaves a traceback in its log.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from carvana_ens.engine.cluster import check_stamp
from carvana_ens.errors import CarvanaEnsError

Item = TypeVar("Item")
Result = TypeVar("Result")
STDERR = 2


@dataclass(frozen=True)
class Refused:
    """An error of ours that a task ended with: to be raised, not to be tried again."""

    error: CarvanaEnsError


class _State:
    """Of this process. limit: of the task that it works on, None for none. log: the file for a traceback."""

    limit: float | None = None
    log: int = STDERR
    stamp: str | None = None
    kept: tuple[str, Any] | None = None


_STATE = _State()
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Task(Generic[Item, Result]):
    """A function for items, with what a worker must know around it; see ``Cluster`` for the fields."""

    function: Callable[[Item], Result]
    tell: Callable[[], str]
    stamp: str
    limit: float
    local: bool

    def __call__(self, item: Item) -> Result | Refused:
        with _ONE_AT_A_TIME:
            try:
                if self.stamp != _STATE.stamp:  # a worker may have come later than the others were asked
                    check_stamp("a worker", self.tell(), self.stamp)
                    _STATE.stamp = self.stamp
                _STATE.limit = self.limit
                _STATE.log = _nowhere() if self.local else STDERR
                alive()
                return self.function(item)
            except CarvanaEnsError as error:
                return Refused(error)
            finally:
                faulthandler.cancel_dump_traceback_later()
                _STATE.limit = None


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def alive() -> None:
    """Called by a task whenever it has finished something: its seconds start again. Nothing where no task runs."""
    if _STATE.limit is not None:
        faulthandler.dump_traceback_later(_STATE.limit, exit=True, file=_STATE.log)


def kept(key: str, make: Callable[[], Result]) -> Result:
    """What ``make`` gives (loaded models, open stores), made once for all tasks of one key that follow one another."""
    if _STATE.kept is None or _STATE.kept[0] != key:
        _STATE.kept = None  # let go before the next takes its place
        _STATE.kept = key, make()
    found: Result = _STATE.kept[1]
    return found


def threads_here() -> int:
    """Threads that a task may use: as many as Dask gives the worker that it runs on."""
    from distributed import get_worker

    threads: int = get_worker().state.nthreads
    return threads
