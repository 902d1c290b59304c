"""Tasks in threads: all of them, or the first failure."""

import threading

import pytest
from sluice_server.model.s3.parallel import run_all


def test_all_tasks_run_in_at_most_so_many_threads() -> None:
    names: list[str] = []
    run_all([lambda: names.append(threading.current_thread().name)] * 100, 3, threading.Event(), lambda: None)
    assert len(names) == 100
    assert set(names) <= {"parallel-0", "parallel-1", "parallel-2"}


def test_no_tasks_are_done_at_once() -> None:
    ticks: list[int] = []
    run_all([], 3, threading.Event(), lambda: ticks.append(1))
    assert ticks == [1]


def test_the_caller_is_told_while_tasks_run() -> None:
    go_on, ticks = threading.Event(), [0]

    def tick() -> None:
        ticks[0] += 1
        if ticks[0] == 3:
            go_on.set()

    def task() -> None:
        assert go_on.wait(20)

    run_all([task], 1, threading.Event(), tick, tick_seconds=0.001)
    assert ticks[0] >= 3


def test_the_first_failure_stops_the_others_and_is_raised() -> None:
    stop, ran = threading.Event(), []

    def fails() -> None:
        raise ValueError("the third")

    def waits() -> None:
        ran.append(1)
        assert stop.wait(20)

    with pytest.raises(ValueError, match="the third"):
        run_all([waits, fails, *[waits] * 50], 2, stop, lambda: None)
    assert len(ran) == 1
    assert not any(thread.name.startswith("parallel-") for thread in threading.enumerate())
