"""Those who are refused come back one after the other."""

from hypothesis import given
from hypothesis import strategies as st
from sluice_server.requests import Priority
from sluice_server.returns import Returns

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def test_the_first_comes_when_there_is_room_and_each_other_one_when_the_one_before_is_done() -> None:
    returns = Returns(2000)
    assert [returns.after_ms(300, 50, priority=INTERACTIVE, now=10.0) for _ in range(4)] == [300, 350, 400, 450]
    assert returns.after_ms(300, 50, priority=INTERACTIVE, now=10.2) == 300


def test_a_queue_behind_the_queue_empties_with_time() -> None:
    returns = Returns(2000)
    for _ in range(10):
        returns.after_ms(100, 50, priority=INTERACTIVE, now=0.0)
    assert returns.after_ms(100, 50, priority=INTERACTIVE, now=1.0) == 100


def test_batch_work_does_not_keep_people_away() -> None:
    returns = Returns(2000)
    for _ in range(10):
        returns.after_ms(100, 500, priority=BATCH, now=0.0)
    assert returns.after_ms(100, 50, priority=INTERACTIVE, now=0.0) == 100


def test_without_a_measurement_all_come_when_there_is_room() -> None:
    returns = Returns(2000)
    assert [returns.after_ms(300, None, priority=INTERACTIVE, now=0.0) for _ in range(3)] == [300] * 3


@given(
    refused=st.lists(st.tuples(st.floats(0, 1), st.integers(10, 5000), st.floats(0, 500)), max_size=60),
    max_drain_ms=st.floats(100, 5000),
)
def test_nobody_comes_before_there_is_room_or_stays_away_for_longer_than_two_limits(
    refused: list[tuple[float, int, float]], max_drain_ms: float
) -> None:
    returns, now = Returns(max_drain_ms), 0.0
    for gap, earliest_ms, work_ms in refused:
        now += gap
        after_ms = returns.after_ms(earliest_ms, work_ms, priority=INTERACTIVE, now=now)
        assert earliest_ms <= after_ms <= max(earliest_ms, 2 * max_drain_ms) + 1
