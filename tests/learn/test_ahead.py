from __future__ import annotations

import threading

import pytest

from carvana_ens.learn.ahead import called_apart, made_ahead


def test_calls_run_in_a_thread_of_their_own_and_their_answers_come_in_order():
    here, seen, before = threading.get_ident(), [], threading.active_count()

    def call(number):
        seen.append(threading.get_ident())
        return number

    assert list(called_apart((lambda n=n: call(n)) for n in range(5))) == list(range(5))
    assert len(set(seen)) == 1
    assert here not in seen
    assert threading.active_count() == before


@pytest.mark.parametrize("faulty", [0, 1, 3])
def test_what_was_called_before_an_error_comes_first(faulty):
    def calls():
        for number in range(5):
            if number == faulty:
                raise ValueError("no more")
            yield lambda n=number: n

    answers = called_apart(calls())
    assert [next(answers) for _ in range(faulty)] == list(range(faulty))
    with pytest.raises(ValueError, match="no more"):
        next(answers)


def test_an_error_of_a_call_is_raised_at_its_turn():
    def call(number):
        if number == 2:
            raise KeyError(number)
        return number

    answers = called_apart((lambda n=n: call(n)) for n in range(9))
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(KeyError):
        list(answers)


def test_a_generator_that_is_made_ahead_is_closed():
    closed, before = [], threading.active_count()

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(threading.active_count())

    made = made_ahead(items(), 3)
    assert [next(made) for _ in range(4)] == [0, 1, 2, 3]
    made.close()
    assert closed == [before]
