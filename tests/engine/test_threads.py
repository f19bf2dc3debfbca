"""Work on threads: in order, no further ahead than it has to be, and errors where they belong."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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


@pytest.mark.parametrize("batch", [1, 3, 200])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 5, 100])
def test_results_come_in_the_order_of_the_items(threads: int, items: int, batch: int) -> None:
    found = list(ordered_map(lambda number: number * number, range(items), threads, batch))
    assert found == [n * n for n in range(items)]


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


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("threads", [2, 4])
def test_what_is_under_way_is_bounded(threads: int, batch: int) -> None:
    items = Counted(1000)
    results = ordered_map(lambda item: item, items, threads, batch)
    assert items.taken == 0  # nothing starts before it is asked for
    for number, result in enumerate(results):
        assert result == number
        assert items.taken <= number + 2 * threads * batch
        if number == 20:
            assert items.taken > 21  # but some are ahead, or threads would idle
            break


def test_the_items_of_a_batch_are_worked_on_by_one_thread() -> None:
    threads = list(ordered_map(lambda item: threading.get_ident(), range(40), 3, 4))
    assert all(len(set(threads[start : start + 4])) == 1 for start in range(0, 40, 4))


def test_one_thread_takes_one_item_at_a_time_in_this_thread() -> None:
    items = Counted(1000)
    seen = []
    for number, thread in enumerate(ordered_map(lambda item: threading.current_thread(), items, 1)):
        seen.append(thread)
        assert items.taken == number + 1
    assert set(seen) == {threading.current_thread()}
    assert len(seen) == 1000


@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (3, 1), (3, 4)])
def test_an_error_comes_where_its_result_would_have(threads: int, batch: int) -> None:
    def work(item: int) -> int:
        if item == 6:
            raise ValueError("item 6")
        return item

    items = Counted(1000)
    results = ordered_map(work, items, threads, batch)
    for expected in range(6):  # those of the error's own batch too
        assert next(results) == expected
    with pytest.raises(ValueError, match="item 6"):
        next(results)
    assert items.taken <= 6 + 2 * threads * batch  # the work has stopped
    assert list(results) == []


def test_a_stop_does_not_wait_for_the_rest_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    began, stopping = threading.Event(), threading.Event()
    done = []

    def work(item: int) -> int:
        if item >= 10:
            began.set()
            assert stopping.wait(SECONDS)
        done.append(item)
        return item

    shutdown = ThreadPoolExecutor.shutdown

    def stop(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        stopping.set()
        shutdown(pool, wait, cancel_futures=cancel_futures)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", stop)
    results = ordered_map(work, range(100), 2, 10)
    assert next(results) == 0
    assert began.wait(SECONDS)
    results.close()
    assert set(done) - set(range(10)) <= {10, 20}  # what ran was finished, and nothing after it


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
