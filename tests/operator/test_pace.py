"""Gates that load moves are written at a bounded pace, and none waits longer than that asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_operator.pace import PACED, Pace
from sluice_operator.reasons import GateReason

LIMIT = 10


def taken(pace: Pace, times: list[float]) -> list[float]:
    """The moments at which a write was allowed, of those at which one was asked for."""
    allowed = []
    for now in times:
        pace, may = pace.take(now)
        if may:
            allowed.append(now)
    return allowed


@given(st.floats(2, 1000), st.lists(st.floats(0, 0.3), max_size=300))
def test_no_second_holds_more_writes_than_the_limit(limit: float, gaps: list[float]) -> None:
    times = [1000.0 + sum(gaps[:n]) for n in range(len(gaps))]
    allowed = taken(Pace.of(limit, 1000.0), times)
    for at in allowed:
        assert sum(at <= other < at + 1 for other in allowed) <= limit + 1e-6


@given(st.floats(2, 1000), st.lists(st.floats(-10, 10), max_size=50))
def test_a_clock_that_goes_back_gives_nothing(limit: float, steps: list[float]) -> None:
    times = [1000.0 + sum(steps[:n]) for n in range(len(steps))]
    pace, highest, allowed = Pace.of(limit, 1000.0), 1000.0, 0
    for now in times:
        highest = max(highest, now)
        pace, may = pace.take(now)
        allowed += may
        assert allowed <= pace.burst + (highest - 1000.0) * pace.rate + 1e-6


def test_a_single_pod_never_waits() -> None:
    _, may = Pace.of(LIMIT, 0.0).take(0.0)
    assert may


def test_a_storm_is_written_at_the_rate_of_the_bucket() -> None:
    allowed = taken(Pace.of(LIMIT, 0.0), [n / 100 for n in range(1001)])
    assert len(allowed) == 2 + 8 * 10


@pytest.mark.parametrize("waiting", [1, 7, 50])
def test_those_who_wait_and_ask_again_in_turn_find_a_full_bucket_each(waiting: int) -> None:
    pace = Pace.of(LIMIT, 0.0)
    assert pace.pause_seconds(waiting) * pace.rate == pytest.approx(waiting * pace.burst)


def test_only_what_load_moves_is_paced() -> None:
    assert set(GateReason) - PACED == {
        GateReason.SERVING, GateReason.OTHER_VECTORS, GateReason.GATES_OFF, GateReason.SERVICE_DELETED,
    }  # fmt: skip
