"""What is computed next, as timelines."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from sluice_server.batcher import BatchLimits, next_batch, token_budget
from sluice_server.buckets import Buckets
from sluice_server.requests import BatchPlan, Priority, Wait

from tests.fakes import NEVER, pending, steady_cost

BOUNDARIES = (16, 32, 64)
PACKED = BatchLimits(max_rows=100, max_tokens=1000, target_seconds=0.02, stale_after_seconds=0.05, mixes_buckets=True)
PADDED = replace(PACKED, mixes_buckets=False)
# 10,000 tokens/s and 20 ms: a full batch is 200 tokens.
COST = steady_cost(BOUNDARIES)


def queue(*requests: object) -> Buckets:
    buckets = Buckets(BOUNDARIES)
    for request in requests:
        buckets.add(request)  # type: ignore[arg-type]
    return buckets


def rows_of(plan: BatchPlan) -> int:
    return sum(len(part.indices) for part in plan.slices)


def test_an_idle_device_never_waits() -> None:
    plan = next_batch(queue(pending([3])), PACKED, COST, 0.0, device_idle=True)
    assert isinstance(plan, BatchPlan)
    assert plan.reason == "idle"


def test_nothing_queued_waits_for_an_arrival() -> None:
    assert next_batch(queue(), PACKED, COST, 0.0, device_idle=True) == Wait(None)


def test_a_busy_device_lets_a_small_batch_grow_until_its_oldest_row_is_stale() -> None:
    buckets = queue(pending([3], arrived_at=1.0))
    assert next_batch(buckets, PACKED, COST, 1.01, device_idle=False) == Wait(1.05)
    plan = next_batch(buckets, PACKED, COST, 1.05, device_idle=False)
    assert isinstance(plan, BatchPlan)
    assert plan.reason == "stale"


def test_a_full_batch_is_prefetched_while_the_device_is_busy() -> None:
    plan = next_batch(queue(pending([20] * 10)), PACKED, COST, 0.0, device_idle=False)
    assert isinstance(plan, BatchPlan)
    assert (plan.reason, plan.tokens) == ("full", 200)


def test_the_earliest_deadline_goes_first_among_stale_rows() -> None:
    relaxed, urgent = pending([60], deadline=9.0), pending([10], deadline=2.0)
    plan = next_batch(queue(relaxed, urgent), PADDED, COST, 1.0, device_idle=True)
    assert isinstance(plan, BatchPlan)
    assert [s.request for s in plan.slices] == [urgent]


def test_the_packed_layout_fills_up_from_other_buckets() -> None:
    plan = next_batch(queue(pending([60, 10, 30])), PACKED, COST, 0.0, device_idle=True)
    assert isinstance(plan, BatchPlan)
    assert (rows_of(plan), plan.tokens, plan.bucket) == (3, 100, 64)


def test_the_padded_layout_keeps_to_one_bucket_and_counts_its_rectangle() -> None:
    plan = next_batch(queue(pending([17] * 20)), PADDED, COST, 0.0, device_idle=True)
    assert isinstance(plan, BatchPlan)
    assert (rows_of(plan), plan.bucket) == (200 // 32, 32)


def test_one_huge_request_is_spread_over_batches_so_that_none_blocks_the_line() -> None:
    buckets = queue(pending([60] * 50), pending([5], arrived_at=0.001))
    sizes = []
    while isinstance(plan := next_batch(buckets, PACKED, COST, 0.0, device_idle=True), BatchPlan):
        sizes.append(plan.tokens)
    assert sum(sizes) == 3005
    assert max(sizes) <= 200


def test_a_budget_holds_at_least_one_row_of_the_bucket() -> None:
    slow = steady_cost(BOUNDARIES, tokens_per_second=10)
    bucket = next(b for b in queue(pending([60])) if b.queued_rows)
    assert token_budget(bucket, PACKED, slow) == 64


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


@given(requests=REQUESTS, packed=st.booleans(), max_rows=st.integers(1, 30))
def test_every_row_is_computed_once_within_every_limit(requests: list, packed: bool, max_rows: int) -> None:
    limits = replace(PACKED if packed else PADDED, max_rows=max_rows)
    waiting = [pending(n, arrived_at=t, deadline=d, priority=p) for n, t, d, p in requests]
    buckets, computed = queue(*waiting), []
    while isinstance(plan := next_batch(buckets, limits, COST, 1.0, device_idle=True), BatchPlan):
        rows = [(waiting.index(s.request), int(i)) for s in plan.slices for i in s.indices]
        assert 1 <= len(rows) <= max_rows
        longest = max(waiting[r].rows.lengths[i] for r, i in rows)
        assert longest <= plan.bucket
        size = plan.tokens if packed else plan.bucket * len(rows)
        assert size <= 200 or len(rows) == 1
        computed += rows
    assert sorted(computed) == [(r, i) for r, one in enumerate(requests) for i in range(len(one[0]))]


@given(others=st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=30), max_size=30))
def test_no_row_starves_behind_a_queue_that_never_ends(others: list[list[int]]) -> None:
    """New full batches arrive all the time; the stale row goes next all the same."""
    lonely = pending([3], arrived_at=0.0, priority=Priority.BATCH)
    buckets = queue(lonely, *[pending(lengths, arrived_at=0.9) for lengths in others])
    plan = next_batch(buckets, PADDED, COST, 0.06, device_idle=False)
    assert isinstance(plan, BatchPlan)
    batches = 0
    while not any(s.request is lonely for s in plan.slices):
        batches += 1
        assert sum(len(n) for n in others) >= batches, "only rows of its own bucket and before it may precede it"
        plan = next_batch(buckets, PADDED, COST, 0.06, device_idle=False)
        assert isinstance(plan, BatchPlan)
