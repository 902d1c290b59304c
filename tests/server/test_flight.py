"""What the device has, how long that takes, and when it should get more."""

import pytest
from sluice_server.flight import Flight, Underway
from sluice_server.requests import BatchPlan


def batch(expected_seconds: float) -> Underway:
    return Underway(BatchPlan((), 16, "earliest"), {16: 10}, expected_seconds)


def test_an_idle_device_is_fed_at_once() -> None:
    assert Flight().feed_at(7.0) == 7.0


@pytest.mark.parametrize(
    ("expected_seconds", "feed_at"), [(0.1, 10.085), (0.01, 10.008), (0.001, 10.0)], ids=["long", "short", "tiny"]
)
def test_a_busy_device_is_fed_shortly_before_its_batch_should_end(expected_seconds: float, feed_at: float) -> None:
    flight = Flight()
    flight.add(0, batch(expected_seconds), 10.0)
    assert flight.feed_at(10.0) == pytest.approx(feed_at)


def test_a_batch_that_takes_longer_than_expected_lets_the_next_one_be_prefetched() -> None:
    flight = Flight()
    flight.add(0, batch(0.1), 10.0)
    assert flight.feed_at(11.0) == 11.0


def test_a_device_that_runs_one_batch_and_holds_another_is_not_fed() -> None:
    flight = Flight()
    flight.add(0, batch(0.1), 10.0)
    flight.add(1, batch(0.1), 10.08)
    assert flight.feed_at(10.09) is None
    assert flight.remaining_seconds(10.09) == pytest.approx(0.11)


@pytest.mark.parametrize(("most", "fed"), [(1, False), (2, True), (7, True)])
def test_where_one_batch_is_all_that_the_device_may_have_none_is_prefetched(most: int, *, fed: bool) -> None:
    flight = Flight(most)
    flight.add(0, batch(0.1), 10.0)
    assert (flight.feed_at(10.09) is not None) == fed
    if fed:
        flight.add(1, batch(0.1), 10.09)
        assert flight.feed_at(10.09) is None, "never more than two"


def test_others_may_come_into_the_next_batch_until_it_is_made() -> None:
    flight = Flight()
    assert flight.open_seconds(10.0) == 0.0
    flight.add(0, batch(0.1), 10.0)
    assert flight.open_seconds(10.0) == pytest.approx(0.085)
    assert flight.open_seconds(11.0) == 0.0
    flight.add(1, batch(0.2), 10.08)
    assert flight.open_seconds(10.09) == pytest.approx(0.01 + 0.2 - 0.03)


def test_the_prefetched_batch_runs_from_the_moment_when_the_other_ends() -> None:
    flight = Flight()
    flight.add(0, batch(0.1), 10.0)
    flight.add(1, batch(0.2), 10.08)
    flight.pop(0, 10.15)
    assert flight.running_seconds(10.2) == pytest.approx(0.05)
    assert flight.remaining_seconds(10.2) == pytest.approx(0.15)
