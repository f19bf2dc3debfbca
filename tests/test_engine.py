"""Work on threads: in order, no further ahead than it has to be, and errors where they belong."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from carvana_ens.engine import default_threads, ordered_map

SECONDS = 30  # for what must happen; nothing here waits for time to pass


class Counted:
    """0, 1, 2, ...; taken: how many have been asked for."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.end):
            self.taken += 1
            yield number


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 5, 100])
def test_results_come_in_the_order_of_the_items(threads: int, items: int) -> None:
    assert list(ordered_map(lambda number: number * number, range(items), threads)) == [n * n for n in range(items)]


def test_the_order_is_kept_when_later_items_are_done_first() -> None:
    later_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert later_done.wait(SECONDS)
        if item == 3:
            later_done.set()
        return item

    assert list(ordered_map(work, range(6), 2)) == [0, 1, 2, 3, 4, 5]


def test_as_many_run_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(3)

    def work(item: int) -> str:
        together.wait(SECONDS)  # passes only when three are here
        return threading.current_thread().name

    assert len(set(ordered_map(work, range(9), 3))) <= 3


@pytest.mark.parametrize("threads", [2, 4])
def test_what_is_under_way_is_bounded(threads: int) -> None:
    items = Counted(1000)
    results = ordered_map(lambda item: item, items, threads)
    assert items.taken == 0  # nothing starts before it is asked for
    for number, result in enumerate(results):
        assert result == number
        assert items.taken <= number + 2 * threads
        if number == 20:
            assert items.taken > 21  # but some are ahead, or threads would idle
            break


def test_one_thread_takes_one_item_at_a_time_in_this_thread() -> None:
    items = Counted(1000)
    seen = []
    for number, thread in enumerate(ordered_map(lambda item: threading.current_thread(), items, 1)):
        seen.append(thread)
        assert items.taken == number + 1
    assert set(seen) == {threading.current_thread()}
    assert len(seen) == 1000


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_where_its_result_would_have(threads: int) -> None:
    def work(item: int) -> int:
        if item == 7:
            raise ValueError("item 7")
        return item

    items = Counted(1000)
    results = ordered_map(work, items, threads)
    for expected in range(7):
        assert next(results) == expected
    with pytest.raises(ValueError, match="item 7"):
        next(results)
    assert items.taken <= 7 + 2 * threads  # the work has stopped
    assert list(results) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_the_items_comes_out(threads: int) -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        list(ordered_map(lambda item: item, items(), threads))


def test_no_thread_is_left_after_an_error_or_an_end_before_time() -> None:
    before = threading.active_count()

    def fails(item: int) -> int:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        list(ordered_map(fails, range(100), 4))
    assert threading.active_count() == before
    results = ordered_map(lambda item: item, range(100), 4)
    assert next(results) == 0
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_default_threads() -> None:
    assert 1 <= default_threads() <= (os.cpu_count() or 1)
