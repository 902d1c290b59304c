"""What marked calls tell of the time that others wait before the server sees them."""

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.rpc.accept_delay import AcceptDelay


def sent(delay: AcceptDelay, now: float) -> bytes:
    mark = delay.next_mark(now)
    assert mark is not None
    return mark


def test_nothing_is_known_before_a_marked_call_was_sent() -> None:
    assert AcceptDelay().seconds(5.0) is None


def test_what_a_marked_call_waited_the_calls_behind_it_waited_too() -> None:
    delay = AcceptDelay()
    delay.accepted(sent(delay, 10.0), 10.3)
    assert delay.seconds(10.3) == pytest.approx(0.3)
    assert delay.seconds(10.9) == pytest.approx(0.3)


def test_while_the_queue_grows_the_first_that_still_waits_says_how_long_at_least() -> None:
    delay = AcceptDelay()
    delay.accepted(sent(delay, 10.0), 10.05)
    sent(delay, 10.2)
    sent(delay, 10.4)
    assert delay.seconds(10.22) == pytest.approx(0.05)
    assert delay.seconds(10.9) == pytest.approx(0.7)


def test_what_was_seen_long_ago_says_nothing() -> None:
    delay = AcceptDelay()
    delay.accepted(sent(delay, 10.0), 10.5)
    assert delay.seconds(11.6) is None
    sent(delay, 11.6)
    assert delay.seconds(11.61) == pytest.approx(0.01)


def test_a_call_that_ends_unseen_says_nothing() -> None:
    delay = AcceptDelay()
    delay.over(sent(delay, 10.0))
    assert delay.seconds(10.5) is None


def test_a_call_that_ends_after_it_was_seen_changes_nothing() -> None:
    delay = AcceptDelay()
    mark = sent(delay, 10.0)
    delay.accepted(mark, 10.2)
    delay.over(mark)
    assert delay.seconds(10.2) == pytest.approx(0.2)


def test_a_strangers_mark_says_nothing() -> None:
    delay = AcceptDelay()
    sent(delay, 10.0)
    delay.accepted(b"guessed", 10.4)
    assert delay.seconds(10.5) == pytest.approx(0.5), "the one that it sent still waits"


def test_marks_are_sent_ten_times_a_second_and_so_many_at_most() -> None:
    delay = AcceptDelay()
    marks = [delay.next_mark(index / 100) for index in range(1000)]
    under_way = [mark for mark in marks if mark is not None]
    assert [mark is not None for mark in marks[:21:10]] == [True, True, True]
    assert len(under_way) == len(set(under_way)) == 32
    delay.accepted(under_way[0], 10.0)
    assert delay.next_mark(10.0) is not None


@given(st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)), min_size=1, max_size=200))
def test_it_is_off_by_no_more_than_was_not_looked_for(calls: list[tuple[float, float]]) -> None:
    """First come, first served: calls that come so much after each other, each of which holds the server for a while."""
    delay = AcceptDelay()
    coming = deque[tuple[float, float, bytes | None]]()
    arrived_at = 0.0
    for gap, held in calls:
        arrived_at += gap
        coming.append((arrived_at, held, None))
    now, seen_at = 0.0, -math.inf
    while coming:
        came_at, held, mark = coming.popleft()
        now = max(now, came_at)
        if mark is not None:
            delay.accepted(mark, now)
            seen_at = now
            continue
        estimate, waited = delay.seconds(now), now - came_at
        if estimate is not None and seen_at > -math.inf:
            assert estimate >= waited - (now - seen_at) - 1e-9
        own = delay.next_mark(now)
        if own is not None:
            behind = sum(1 for other in coming if other[0] <= now)
            coming.insert(behind, (now, 0.0, own))
        now += held
