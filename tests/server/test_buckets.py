"""Rows wait in the bucket of their length, first in, first out, interactive before batch."""

from hypothesis import given
from hypothesis import strategies as st
from sluice_server.buckets import Bucket, Buckets
from sluice_server.requests import Due, Priority, RunSlice

from tests.fakes import NEVER, pending

BOUNDARIES = (16, 32, 64)
LENGTHS = st.lists(st.integers(1, 80), min_size=1, max_size=12)


def bucket_of(buckets: Buckets, boundary: int) -> Bucket:
    return next((b for b in buckets.waiting if b.max_tokens == boundary), Bucket(boundary))


def take_all(bucket: Bucket, *, max_rows: int, max_tokens: int) -> list[RunSlice]:
    """As the batcher does: run after run, the first row whatever it costs."""
    taken: list[RunSlice] = []
    while max_rows > 0 and (part := bucket.take(max_rows=max_rows, max_tokens=max_tokens, force=not taken)):
        taken.append(part)
        max_rows -= len(part.indices)
        max_tokens -= part.tokens
    return taken


def test_each_row_waits_in_the_smallest_bucket_that_holds_it() -> None:
    buckets = Buckets(BOUNDARIES)
    buckets.add(pending([1, 16, 17, 64, 90]))
    assert [(b.max_tokens, b.queued_rows, b.queued_tokens) for b in buckets.waiting] == [
        (16, 2, 17),
        (32, 1, 17),
        (64, 2, 154),
    ]


def test_rows_leave_in_the_order_in_which_they_came() -> None:
    buckets, first, second = Buckets(BOUNDARIES), pending([10, 11]), pending([12])
    buckets.add(first)
    buckets.add(second)
    taken = take_all(bucket_of(buckets, 16), max_rows=2, max_tokens=100)
    assert [(s.request, s.indices.tolist(), s.tokens) for s in taken] == [(first, [0, 1], 21)]
    (last,) = take_all(bucket_of(buckets, 16), max_rows=2, max_tokens=100)
    assert last.request is second


def test_interactive_rows_leave_before_batch_rows_that_came_earlier() -> None:
    buckets, batch, interactive = (
        Buckets(BOUNDARIES),
        pending([5], due=Due(4.0, 0.0, NEVER), priority=Priority.BATCH),
        pending([6], due=Due(3.0, 0.0, NEVER)),
    )
    buckets.add(batch)
    buckets.add(interactive)
    assert [s.request for s in take_all(bucket_of(buckets, 16), max_rows=9, max_tokens=99)] == [
        interactive,
        batch,
    ]


def test_a_request_is_cut_where_the_budget_ends_and_goes_on_there() -> None:
    buckets, request = Buckets(BOUNDARIES), pending([10, 10, 10])
    buckets.add(request)
    bucket = bucket_of(buckets, 16)
    assert take_all(bucket, max_rows=9, max_tokens=25)[0].indices.tolist() == [0, 1]
    assert take_all(bucket, max_rows=9, max_tokens=25)[0].indices.tolist() == [2]
    assert bucket.queued_tokens == 0


def test_a_row_above_the_budget_still_goes_alone() -> None:
    buckets = Buckets(BOUNDARIES)
    buckets.add(pending([60, 60]))
    (only,) = take_all(bucket_of(buckets, 64), max_rows=9, max_tokens=30)
    assert only.indices.tolist() == [0]


def test_a_forgotten_request_leaves_nothing_behind() -> None:
    buckets, gone, kept = Buckets(BOUNDARIES), pending([10, 20]), pending([11])
    buckets.add(gone)
    buckets.add(kept)
    assert buckets.forget(gone) == 30
    assert buckets.queued_tokens == 11
    assert [s.request for s in take_all(bucket_of(buckets, 16), max_rows=9, max_tokens=99)] == [kept]
    assert buckets.forget(gone) == 0


@given(
    requests=st.lists(LENGTHS, min_size=1, max_size=8),
    takes=st.lists(st.tuples(st.sampled_from(BOUNDARIES), st.integers(1, 6), st.integers(1, 120)), max_size=30),
    forgotten=st.sets(st.integers(0, 7)),
)
def test_every_row_is_taken_once_or_forgotten_and_the_counts_agree(
    requests: list[list[int]], takes: list[tuple[int, int, int]], forgotten: set[int]
) -> None:
    buckets = Buckets(BOUNDARIES)
    waiting = [pending(lengths) for lengths in requests]
    for request in waiting:
        buckets.add(request)
    seen: list[tuple[int, int]] = []
    for boundary, rows, tokens in takes:
        for part in take_all(bucket_of(buckets, boundary), max_rows=rows, max_tokens=tokens):
            seen += [(waiting.index(part.request), int(i)) for i in part.indices]
    for place in forgotten & set(range(len(waiting))):
        buckets.forget(waiting[place])
    for bucket in buckets.waiting:
        for part in take_all(bucket, max_rows=10_000, max_tokens=10**9):
            assert waiting.index(part.request) not in forgotten
            seen += [(waiting.index(part.request), int(i)) for i in part.indices]
    assert len(seen) == len(set(seen))
    kept = {(r, i) for r, lengths in enumerate(requests) for i in range(len(lengths)) if r not in forgotten}
    assert kept <= set(seen)
    assert buckets.queued_tokens == 0
    assert not buckets.waiting
