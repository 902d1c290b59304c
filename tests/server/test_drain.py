"""The drain estimate against a device that does what the cost model says."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sluice_server.batcher import busy_rate, due, next_batch
from sluice_server.buckets import Buckets
from sluice_server.drain import drain_seconds, joining_seconds, queued_work
from sluice_server.flight import Flight, Underway, tokens_by_bucket
from sluice_server.requests import Priority

from tests.fakes import NEVER, PACKED_LIMITS, pending, steady_cost

BOUNDARIES = (16, 32, 64)
COST = steady_cost(BOUNDARIES, tokens_per_second=10_000, fixed_seconds=0.005)


def queue(requests: list[tuple[list[int], Priority]]) -> Buckets:
    buckets = Buckets(BOUNDARIES)
    for lengths, priority in requests:
        when = due(PACKED_LIMITS, 10_000, arrived_at=0.0, deadline=NEVER, priority=priority)
        buckets.add(pending(lengths, due=when, priority=priority))
    return buckets


def estimate(buckets: Buckets, flight: Flight, *, in_tokenizer: int = 0, only_interactive: bool = False) -> float:
    priorities = (Priority.INTERACTIVE,) if only_interactive else tuple(Priority)
    return drain_seconds(
        buckets=buckets,
        flight=flight,
        reserved_tokens=buckets.queued_tokens + flight.tokens + in_tokenizer,
        rate=busy_rate(COST, PACKED_LIMITS),
        now=0.0,
        queued=sum(
            queued_work(buckets=buckets, cost=COST, limits=PACKED_LIMITS, now=0.0, priority=priority).seconds
            for priority in priorities
        ),
    )


def lived_through(buckets: Buckets, *, until_interactive_is_done: bool = False) -> float:
    """Runs batch after batch, each as long as the cost model says."""
    now = 0.0
    while (plan := next_batch(buckets, PACKED_LIMITS, COST, now)) is not None:
        now += COST.batch_seconds(tokens_by_bucket(plan)) or 0.0
        if until_interactive_is_done and not buckets.queued_tokens_of(Priority.INTERACTIVE):
            break
    return now


def test_nothing_queued_needs_no_time() -> None:
    assert estimate(queue([]), Flight()) == 0.0


def test_the_rest_of_the_running_batch_counts() -> None:
    buckets, flight = queue([([50] * 4, Priority.INTERACTIVE)]), Flight()
    plan = next_batch(buckets, PACKED_LIMITS, COST, 0.0)
    assert plan is not None
    flight.add(0, Underway(plan, tokens_by_bucket(plan), 0.025), 0.0)
    assert estimate(buckets, flight) == pytest.approx(0.025)


def joining(buckets: Buckets, running_seconds: float, coming_share: float) -> float:
    """While so much comes of what the device can do."""
    flight = Flight()
    if running_seconds:
        plan = next_batch(queue([([10], Priority.INTERACTIVE)]), PACKED_LIMITS, COST, 0.0)
        assert plan is not None
        flight.add(0, Underway(plan, tokens_by_bucket(plan), running_seconds), 0.0)
    rate = busy_rate(COST, PACKED_LIMITS)
    assert rate is not None
    return joining_seconds(
        buckets=buckets,
        queued_batches=sum(
            queued_work(buckets=buckets, cost=COST, limits=PACKED_LIMITS, now=0.0, priority=priority).batches
            for priority in Priority
        ),
        flight=flight,
        cost=COST,
        limits=PACKED_LIMITS,
        now=0.0,
        coming_per_second=coming_share * rate,
    )


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_what_starts_at_once_is_joined_by_nobody_and_costs_what_its_batch_does(rows: int) -> None:
    buckets = queue([([50] * rows, Priority.INTERACTIVE)])
    whole = COST.batch_seconds({64: 50 * rows})
    assert whole is not None
    assert estimate(buckets, Flight()) + joining(buckets, 0.0, 0.9) == pytest.approx(whole, abs=0.002)


def test_until_the_next_batch_is_made_others_join_it() -> None:
    alone = joining(queue([]), 0.04, 0.0)
    assert alone == pytest.approx(COST.seconds_per_batch)
    # The device gets the next one when 15 % of the running one are left; what a batch costs counts once.
    longest = COST.full_batch_seconds(4 * PACKED_LIMITS.target_seconds)
    coming = 0.9 * 0.85 * 0.04 * (1 - COST.seconds_per_batch / longest)
    assert joining(queue([]), 0.04, 0.9) == pytest.approx(alone + coming)


def test_more_than_the_device_can_do_does_not_come_in() -> None:
    assert joining(queue([]), 0.04, 3.0) == joining(queue([]), 0.04, 1.0)


def test_under_a_backlog_half_of_the_longest_batch_joins() -> None:
    longest = COST.full_batch_seconds(4 * PACKED_LIMITS.target_seconds)
    assert joining(queue([([50] * 200, Priority.INTERACTIVE)]), 0.04, 1.0) == pytest.approx(longest / 2)


def test_no_more_joins_than_a_batch_holds() -> None:
    longest = COST.full_batch_seconds(4 * PACKED_LIMITS.target_seconds)
    buckets = queue([([50] * 10, Priority.INTERACTIVE)])
    assert joining(buckets, 0.08, 1.0) == pytest.approx(longest - 0.05, rel=0.1)


def test_texts_that_are_still_being_tokenized_count() -> None:
    assert estimate(queue([]), Flight(), in_tokenizer=1000) == pytest.approx(0.1, rel=0.1)


REQUESTS = st.lists(
    st.tuples(st.lists(st.integers(3, 64), min_size=1, max_size=40), st.sampled_from(list(Priority))),
    min_size=1,
    max_size=40,
)


@given(requests=REQUESTS)
def test_the_estimate_is_the_time_that_the_queue_takes(requests: list[tuple[list[int], Priority]]) -> None:
    buckets = queue(requests)
    expected = estimate(buckets, Flight())
    # Whole rows do not fill a batch to its last token, and the last batch is rarely full.
    assert lived_through(buckets) == pytest.approx(expected, rel=0.15, abs=0.01)


@given(requests=REQUESTS)
def test_what_is_ahead_of_a_person_is_over_before_batch_work_is(requests: list[tuple[list[int], Priority]]) -> None:
    buckets = queue(requests)
    assume(buckets.queued_tokens_of(Priority.INTERACTIVE) > 0)
    ahead = estimate(buckets, Flight(), only_interactive=True)
    assert ahead <= estimate(buckets, Flight()) + 1e-9
    # Batch work fills up the last interactive batch: one usual batch at most.
    assert lived_through(buckets, until_interactive_is_done=True) <= 1.1 * ahead + 0.03
