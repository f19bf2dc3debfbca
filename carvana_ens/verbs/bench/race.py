"""One contest: every contestant's results are checked, then they take turns until each has its times."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from carvana_ens.errors import CarvanaEnsError

Role = Literal["ours", "limit", "peer"]
Clock = Literal["wall", "cpu"]

FAST = 0.02
"""Seconds: a contestant that takes less may run several times in a round, so that its median says more."""
MOST_CALLS = 5


def nothing() -> None:
    """No preparation."""


def whole(answer: Any) -> Any:
    """An answer that is compared as it is."""
    return answer


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a contest.

    run: the work on one item. role: "ours" (what we offer), "limit" (what the machine allows) or "peer". result: what
    of the answer must equal the twin's; None: a limit that does not do the work. tolerance: by how much its numbers
    may be off (libraries that count in float32). images: how many one run does; times are per image. bytes_a_map: what
    it takes on disk. before: what must be done before each run and is not timed.
    """

    name: str
    run: Callable[[Any], Any]
    role: Role = "peer"
    result: Callable[[Any], Any] | None = whole
    tolerance: float = 0.0
    images: int = 1
    bytes_a_map: float | None = None
    before: Callable[[], None] = nothing


@dataclass(frozen=True)
class Row:
    """Times of a contestant in ms per image. ms and spread_ms: median and median absolute deviation by the clock asked
    for; wall_ms, cpu_ms: medians by either (CPU time of all threads of this process). of_limit, of_ours: how many
    times the limit's time, and ours, it takes; None where the contest has no such row.
    """

    name: str
    role: Role
    ms: float
    spread_ms: float
    wall_ms: float
    cpu_ms: float
    runs: int
    images: int
    bytes_a_map: float | None
    of_limit: float | None
    of_ours: float | None


@dataclass(frozen=True)
class Contest:
    """name: for programs, unique per kind. kind: of the maps. left_out: peers that are not installed."""

    part: str
    name: str
    title: str
    kind: str
    clock: Clock
    rounds: int
    rows: list[Row]
    left_out: list[str]

    def find(self, name: str) -> Row | None:
        """The row of that name."""
        return next((row for row in self.rows if row.name == name), None)


@dataclass(frozen=True)
class Heading:
    """What a contest is called; see Contest."""

    part: str
    name: str
    title: str
    kind: str


def race(
    heading: Heading,
    contestants: Sequence[Contestant],
    items: Sequence[Any],
    twin: Callable[[Any], Any],
    *,
    rounds: int,
    clock: Clock = "wall",
    checked: int = 2,
    left_out: Sequence[str] = (),
) -> Contest:
    """Times the contestants, each on the next item in every round.

    items: what they work on, in turn; together larger than the caches, where it is the memory that counts. twin: the
    slow, independent way to the result of an item. checked: on how many items results are compared before anything is
    timed. left_out: peers that are not there.

    Raises:
        CarvanaEnsError: a result that differs from the twin's: its time would say nothing.
    """
    taken = check(heading, contestants, items[:checked], twin)
    calls = {name: max(1, min(MOST_CALLS, int(FAST / max(seconds, 1e-9)))) for name, seconds in taken.items()}
    wall: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    cpu: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    with _no_collection():
        turn = 0
        for _ in range(rounds):
            for contestant in contestants:
                for _ in range(calls[contestant.name]):
                    turn += 1
                    on_wall, on_cpu = _timed(contestant, items[turn % len(items)])
                    wall[contestant.name].append(on_wall / contestant.images * 1e3)
                    cpu[contestant.name].append(on_cpu / contestant.images * 1e3)
    rows = _rows(contestants, wall, cpu, clock)
    return Contest(heading.part, heading.name, heading.title, heading.kind, clock, rounds, rows, list(left_out))


def check(
    heading: Heading, contestants: Sequence[Contestant], items: Sequence[Any], twin: Callable[[Any], Any]
) -> dict[str, float]:
    """Runs every contestant on every item and compares; wall-clock seconds of the last run by name.

    Raises:
        CarvanaEnsError: as ``race`` says.
    """
    seconds = {}
    for item in items:
        expected = twin(item)
        for contestant in contestants:
            contestant.before()
            start = time.perf_counter()
            answer = contestant.run(item)
            seconds[contestant.name] = time.perf_counter() - start
            if contestant.result is None:
                continue
            if not _agree(expected, contestant.result(answer), contestant.tolerance):
                raise CarvanaEnsError(
                    f"bench: {contestant.name} gives another result than the slow twin ({heading.title}; "
                    f"{heading.kind}), so that its time would say nothing: report this"
                )
    return seconds


def _agree(expected: Any, got: Any, tolerance: float) -> bool:
    if isinstance(expected, np.ndarray) or isinstance(got, np.ndarray):
        if np.shape(expected) != np.shape(got):
            return False
        return bool(np.array_equal(expected, got) or (tolerance and np.abs(expected - got).max() <= tolerance))
    return bool(expected == got)


def _timed(contestant: Contestant, item: Any) -> tuple[float, float]:
    """(wall, CPU) seconds of one run."""
    contestant.before()
    wall, cpu = time.perf_counter(), time.process_time()
    contestant.run(item)
    return time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _rows(
    contestants: Sequence[Contestant], wall: dict[str, list[float]], cpu: dict[str, list[float]], clock: Clock
) -> list[Row]:
    times = wall if clock == "wall" else cpu
    medians = {name: statistics.median(values) for name, values in times.items()}
    # the first limit is the one that counts, and of our own ways the last one, which is to be the best
    limit = next((medians[c.name] for c in contestants if c.role == "limit"), None)
    ours = next((medians[c.name] for c in reversed(contestants) if c.role == "ours"), None)
    return [
        Row(
            name=c.name,
            role=c.role,
            ms=medians[c.name],
            spread_ms=statistics.median(abs(value - medians[c.name]) for value in times[c.name]),
            wall_ms=statistics.median(wall[c.name]),
            cpu_ms=statistics.median(cpu[c.name]),
            runs=len(times[c.name]),
            images=c.images,
            bytes_a_map=c.bytes_a_map,
            of_limit=medians[c.name] / limit if limit else None,
            of_ours=medians[c.name] / ours if ours else None,
        )
        for c in contestants
    ]
