"""Reading what comes next while this is being worked on."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

READERS = 4

K = TypeVar("K")
V = TypeVar("V")


def read_ahead(read: Callable[[K], V], units: Iterable[Sequence[K]]) -> Iterator[list[V]]:
    """``[read(key) for key in unit]`` for each unit in order; the keys of one unit more are read meanwhile.

    Reading happens in a few threads, so ``read`` must bear being called from several at once. What it raises is
    raised here, when its unit's turn comes. No thread outlives the iterator.
    """
    with ThreadPoolExecutor(READERS) as pool:

        def start(unit: Sequence[K]) -> list[Future[V]]:
            return [pool.submit(read, key) for key in unit]

        rest = iter(units)
        following = [start(unit) for unit in itertools.islice(rest, 1)]
        while following:
            current = following.pop()
            following = [start(unit) for unit in itertools.islice(rest, 1)]
            try:
                yield [future.result() for future in current]
            except BaseException:
                for future in itertools.chain(current, *following):
                    future.cancel()
                raise


def called_apart(calls: Iterable[Callable[[], V]]) -> Iterator[V]:
    """What each call gives, in order; it is made in a thread of its own while the next one is waited for.

    What a call raises is raised here, when its turn comes, and what waiting for the next one raises after what the
    calls before it give. No thread outlives the iterator.
    """
    with ThreadPoolExecutor(1) as pool:
        before: deque[Future[V]] = deque()
        try:
            for call in calls:
                before.append(pool.submit(call))
                if len(before) > 1:
                    yield before.popleft().result()
        except Exception:
            yield from (future.result() for future in before)
            raise
        yield from (future.result() for future in before)


def made_ahead(items: Iterable[V], count: int) -> Iterator[V]:
    """The items in order, the next ``count`` of them made in a thread of their own while one is worked on.

    What making an item raises is raised here, when its turn comes. No thread outlives the iterator.
    """
    rest, end = iter(items), object()
    try:
        with ThreadPoolExecutor(1) as pool:
            coming = deque(pool.submit(next, rest, end) for _ in range(count))
            try:
                while (item := coming.popleft().result()) is not end:
                    coming.append(pool.submit(next, rest, end))
                    yield item  # type: ignore[misc]  # no end, so an item
            finally:
                for future in coming:
                    future.cancel()
    finally:
        if isinstance(rest, Generator):
            rest.close()
