"""What is computed next, as timelines."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.batcher import BatchLimits, due, lowered, next_batch, token_budget, whole_step
from sluice_server.buckets import Buckets
from sluice_server.requests import BatchPlan, PendingRequest, Priority

from tests.fakes import NEVER, pending, steady_cost
from tests.fakes import SMALL_PACKED_LIMITS as PACKED

BOUNDARIES = (16, 32, 64)
PADDED = replace(PACKED, mixes_buckets=False)
# 10,000 tokens/s and 20 ms: a usual batch is 200 tokens, the longest under a backlog 800.
COST = steady_cost(BOUNDARIES)
BATCH, INTERACTIVE = Priority.BATCH, Priority.INTERACTIVE


def asked(
    lengths: list[int], *, arrived_at: float = 0.0, deadline: float = NEVER, priority: Priority = INTERACTIVE
) -> PendingRequest:
    when = due(PACKED, 10_000, arrived_at=arrived_at, deadline=deadline, priority=priority)
    return pending(lengths, arrived_at=arrived_at, deadline=deadline, due=when, priority=priority)


def queue(*requests: PendingRequest) -> Buckets:
    buckets = Buckets(BOUNDARIES)
    for request in requests:
        buckets.add(request)
    return buckets


def chosen(buckets: Buckets, limits: BatchLimits, now: float = 0.0) -> BatchPlan:
    plan = next_batch(buckets, limits, COST, now)
    assert plan is not None
    return plan


def rows_of(plan: BatchPlan) -> int:
    return sum(len(part.indices) for part in plan.slices)


def requests_of(plan: BatchPlan) -> list[PendingRequest]:
    return [part.request for part in plan.slices]


def test_where_nothing_is_queued_there_is_no_batch() -> None:
    assert next_batch(queue(), PACKED, COST, 0.0) is None


def test_one_short_row_is_a_batch() -> None:
    assert rows_of(chosen(queue(asked([3])), PACKED)) == 1


@pytest.mark.parametrize(
    ("deadline", "priority", "first_at"),
    [(NEVER, INTERACTIVE, 12.0), (11.0, INTERACTIVE, 11.0), (60.0, INTERACTIVE, 12.0), (11.0, BATCH, 14.0)],
)
def test_everything_is_due_at_some_time(deadline: float, priority: Priority, first_at: float) -> None:
    assert due(PACKED, 10_000, arrived_at=10.0, deadline=deadline, priority=priority).first_at == first_at


def test_the_rows_of_a_large_request_are_due_one_after_the_other_but_by_its_deadline() -> None:
    when = due(PACKED, 10_000, arrived_at=10.0, deadline=12.5, priority=INTERACTIVE)
    assert [when.after(tokens) for tokens in (0, 1000, 5000)] == [12.0, 12.2, 12.5]
    assert due(PACKED, None, arrived_at=10.0, deadline=NEVER, priority=INTERACTIVE).after(10_000) == 12.0


def test_a_small_request_overtakes_the_rest_of_a_large_one_that_came_before() -> None:
    large, small = asked([60] * 100), asked([5], arrived_at=0.1)
    buckets = queue(large)
    assert chosen(buckets, PACKED, now=0.0).tokens == 780
    buckets.add(small)
    assert requests_of(chosen(buckets, PACKED, now=0.1))[0] is small


def test_packed_rows_go_by_when_they_are_due_whatever_their_length() -> None:
    late, early, urgent = asked([60], arrived_at=0.2), asked([10], arrived_at=0.1), asked([30], deadline=1.0)
    assert requests_of(chosen(queue(late, early, urgent), PACKED)) == [urgent, early, late]


def test_interactive_rows_overtake_batch_rows_of_every_bucket() -> None:
    bulk, person = asked([30] * 20, priority=BATCH), asked([5], arrived_at=1.0)
    assert requests_of(chosen(queue(bulk, person), PACKED))[0] is person


def test_batch_rows_that_waited_twice_the_patience_longer_go_first() -> None:
    bulk, person = asked([30] * 20, priority=BATCH), asked([5], arrived_at=2.1)
    assert requests_of(chosen(queue(bulk, person), PACKED))[0] is bulk


def test_the_packed_layout_fills_up_from_other_buckets() -> None:
    plan = chosen(queue(asked([60, 10, 30])), PACKED)
    assert (rows_of(plan), plan.tokens, plan.bucket) == (3, 100, 64)


def test_the_padded_layout_keeps_to_one_bucket_and_counts_its_rectangle() -> None:
    plan = chosen(queue(asked([17] * 20)), replace(PADDED, max_tokens=200))
    assert (rows_of(plan), plan.bucket) == (200 // 32, 32)


def test_the_padded_layout_takes_a_stale_bucket_before_a_full_one() -> None:
    lonely, many = asked([3]), asked([30] * 20, arrived_at=0.04)
    assert requests_of(chosen(queue(lonely, many), PADDED, now=0.04)) == [many]
    lonely, many = asked([3]), asked([30] * 20, arrived_at=0.04)
    plan = chosen(queue(lonely, many), PADDED, now=0.05)
    assert (requests_of(plan), plan.reason) == ([lonely], "stale")


def test_the_padded_layout_takes_the_largest_bucket_where_none_is_stale_or_full() -> None:
    few, more = asked([3]), asked([30, 30])
    plan = chosen(queue(few, more), PADDED)
    assert (requests_of(plan), plan.reason) == ([more], "largest")


def test_the_padded_layout_prefers_buckets_where_somebody_waits() -> None:
    bulk, person = asked([30] * 20, priority=BATCH), asked([5], arrived_at=1.0)
    assert requests_of(chosen(queue(bulk, person), replace(PADDED, max_rows=4), now=1.06)) == [person]


def test_a_backlog_stretches_the_batch_up_to_four_times_its_usual_time() -> None:
    assert chosen(queue(asked([20] * 10)), PACKED).tokens == 200
    assert chosen(queue(asked([20] * 25)), PACKED).tokens == 500
    assert chosen(queue(asked([20] * 100)), PACKED).tokens == 800


def test_one_huge_request_is_spread_over_batches_so_that_none_blocks_the_line() -> None:
    buckets = queue(asked([60] * 50), asked([5], arrived_at=0.001))
    sizes = []
    while (plan := next_batch(buckets, PACKED, COST, 0.0)) is not None:
        sizes.append(plan.tokens)
    assert sum(sizes) == 3005
    assert max(sizes) <= 800


def test_a_budget_holds_at_least_one_row_of_the_bucket() -> None:
    slow = steady_cost(BOUNDARIES, tokens_per_second=10)
    (bucket,) = queue(asked([60])).waiting
    assert token_budget(bucket, PACKED, slow, 60) == 64


def test_after_a_batch_that_did_not_fit_the_memory_half_of_it_is_the_most() -> None:
    assert lowered(PACKED, failed_tokens=800, longest_row=64).max_tokens == 400
    assert lowered(PACKED, failed_tokens=5000, longest_row=64).max_tokens == 1000
    assert lowered(PACKED, failed_tokens=100, longest_row=64).max_tokens == 64


REQUESTS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 64), min_size=1, max_size=20),
        st.floats(0, 1),
        st.sampled_from([NEVER, 0.5, 2.0]),
        st.sampled_from(list(Priority)),
    ),
    min_size=1,
    max_size=12,
)


@given(requests=REQUESTS, packed=st.booleans(), max_rows=st.integers(1, 30), max_tokens=st.integers(64, 300))
def test_every_row_is_computed_once_within_every_limit(
    requests: list, packed: bool, max_rows: int, max_tokens: int
) -> None:
    limits = replace(PACKED if packed else PADDED, max_rows=max_rows, max_tokens=max_tokens)
    waiting = [asked(n, arrived_at=t, deadline=d, priority=p) for n, t, d, p in requests]
    buckets, computed = queue(*waiting), []
    while (plan := next_batch(buckets, limits, COST, 1.0)) is not None:
        rows = [(waiting.index(s.request), int(i)) for s in plan.slices for i in s.indices]
        assert 1 <= len(rows) <= max_rows
        longest = max(waiting[r].rows.lengths[i] for r, i in rows)
        assert longest <= plan.bucket
        size = plan.tokens if packed else plan.bucket * len(rows)
        assert size <= max_tokens or len(rows) == 1
        computed += rows
    assert sorted(computed) == [(r, i) for r, one in enumerate(requests) for i in range(len(one[0]))]


@given(
    others=st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=30), max_size=30),
    packed=st.booleans(),
    priority=st.sampled_from(list(Priority)),
)
def test_no_row_starves_behind_a_queue_that_never_ends(
    others: list[list[int]], packed: bool, priority: Priority
) -> None:
    """What comes more than twice the patience after a row goes after it, however much it is."""
    limits = PACKED if packed else PADDED
    lonely = asked([3], arrived_at=0.0, priority=priority)
    buckets = queue(lonely, *[asked(lengths, arrived_at=4.1) for lengths in others])
    assert lonely in requests_of(chosen(buckets, limits, now=4.2))


def test_batch_work_makes_no_long_batches_while_people_ask() -> None:
    bulk, person = asked([20] * 100, priority=BATCH), asked([5])
    buckets = queue(bulk, person)
    # A third of the usual 200.
    assert 0 < chosen(buckets, PACKED, now=0.1).tokens <= 67
    assert 0 < chosen(buckets, PACKED, now=1.9).tokens <= 67
    assert chosen(buckets, PACKED, now=2.1).tokens == 800


def test_people_share_batches_as_long_as_ever_beside_batch_work() -> None:
    buckets = queue(asked([20] * 100, priority=BATCH), asked([20] * 8))
    assert chosen(buckets, PACKED, now=0.1).tokens == 160


@pytest.mark.parametrize(
    ("queued", "computed"),
    [(300, 200), (190, 190), (130, 130)],
    ids=["what is left over goes with the next", "all that there is", "nothing to go with"],
)
def test_a_device_that_fills_batches_up_gets_whole_steps_while_more_is_queued(queued: int, computed: int) -> None:
    limits = replace(PACKED, token_steps=(100, 200, 400), max_tokens=250)
    assert chosen(queue(asked([10] * (queued // 10))), limits, now=0.0).tokens == computed


@given(
    steps=st.lists(st.integers(1, 1000), unique=True, max_size=8).map(sorted),
    budget=st.integers(1, 1200),
    queued=st.integers(0, 2000),
)
def test_a_whole_step_is_never_more_than_the_budget_and_loses_less_than_a_step(
    steps: list[int], budget: int, queued: int
) -> None:
    kept = whole_step(steps, budget, queued)
    assert 0 < kept <= budget
    assert kept == budget or (kept in steps and queued > budget)
    assert kept == budget or not any(kept < step <= budget for step in steps)
