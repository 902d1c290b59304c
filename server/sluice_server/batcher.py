"""What to compute next. Pure: queues, limits and the time in, one batch out."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sluice_server.buckets import Bucket, Buckets
from sluice_server.cost import CostModel
from sluice_server.requests import BatchPlan, Due, Priority, RunSlice

# Under a backlog a batch may take so many times its target: what waits gains more by fewer fixed costs
# than it loses behind a longer batch.
MOST_STRETCH = 4.0
# Batch work is in company while somebody asked within this time: the next person would wait for all of its batch.
_COMPANY_SECONDS = 2.0
# Of the usual time that a batch may take which batch work fills, in company: a person waits for the rest of one and
# for one of their own.
_COMPANY_SHARE = 1 / 3
# And of the time of such a batch, its tokens take at least so many times what it costs beside them: less efficient
# than batches otherwise are, as the person would wait for what is gained.
_COMPANY_LEAST_SHARE = 1.5
# Interactive work overtakes batch work that came up to so many patiences before it.
_BATCH_PATIENCES = 2.0
# A request's own rows are due one after the other at the device's rate divided by this.
_LARGE_YIELD = 2.0
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may be.

    Attributes:
        max_rows: Rows per batch.
        max_tokens: Tokens per batch, padding included.
        target_seconds: Time that one batch should take.
        stale_after_seconds: A row that waited so long goes first.
        patience_seconds: Work is due so long after it came, unless its own deadline is earlier.
        mixes_buckets: The packed layout fills a batch from every bucket.
        token_steps: Tokens that the device fills a batch up to, ascending; none where it computes it as it is.
    """

    max_rows: int
    max_tokens: int
    target_seconds: float
    stale_after_seconds: float
    patience_seconds: float
    mixes_buckets: bool
    token_steps: Sequence[int] = ()


def due(limits: BatchLimits, rate: float | None, *, arrived_at: float, deadline: float, priority: Priority) -> Due:
    """When work should be done: the order in which rows go to the device.

    Earliest deadline first, with a deadline for everybody: those who set none, or a late one, are due after the
    patience; batch work after twice that, whatever its deadline. The rows of one request are due one after the other,
    at half the device's rate: a small request overtakes the rest of a large one, and equal ones keep their order.
    All of it is finite, so nothing starves.

    Args:
        limits: Of one batch; its patience.
        rate: Of the device, in tokens per second; None before anything was measured.
        arrived_at: On the server's clock.
        deadline: On the same clock; infinity where there is none.
        priority: Of the request.
    """
    seconds_per_token = _LARGE_YIELD / rate if rate else 0.0
    if priority is Priority.BATCH:
        return Due(arrived_at + _BATCH_PATIENCES * limits.patience_seconds, seconds_per_token, _NEVER)
    return Due(min(deadline, arrived_at + limits.patience_seconds), seconds_per_token, deadline)


def next_batch(buckets: Buckets, limits: BatchLimits, cost: CostModel, now: float) -> BatchPlan | None:
    """Chooses the next batch and takes its rows out of the buckets; None where nothing is queued.

    The packed layout mixes all buckets, the earliest due first. The padded layout computes one bucket: a stale one
    (the earliest due), else a full one, else the largest; interactive work before batch work.

    Args:
        buckets: The queues; rows of requests that ended are gone from them.
        limits: What one batch may be.
        cost: How long so many tokens of a bucket take.
        now: The server's clock, in seconds.
    """
    waiting = buckets.waiting
    if not waiting:
        return None
    if limits.mixes_buckets:
        seed = min(waiting, key=lambda bucket: bucket.due_at)
        backlog = backlog_tokens(buckets, now)
        budget = token_budget(seed, limits, cost, backlog, in_company=in_company(buckets, now))
        budget = whole_step(limits.token_steps, budget, buckets.queued_tokens)
        return _fill(waiting, limits.max_rows, budget, "earliest")
    seed, reason = _seed(waiting, limits, cost, now)
    backlog = min(seed.queued_rows * seed.max_tokens, backlog_tokens(buckets, now))
    budget = token_budget(seed, limits, cost, backlog, in_company=in_company(buckets, now))
    # The padded layout computes the whole rectangle.
    return _fill([seed], min(limits.max_rows, max(1, budget // seed.max_tokens)), budget, reason)


def in_company(buckets: Buckets, now: float) -> bool:
    """Whether people ask these seconds, so that batch work has to be out of their way."""
    return now - buckets.interactive_at < _COMPANY_SECONDS


def backlog_tokens(buckets: Buckets, now: float, priority: Priority = Priority.INTERACTIVE) -> int:
    """What makes batches of this priority longer: all that is queued; in the company of people only their own."""
    if not in_company(buckets, now):
        return buckets.queued_tokens
    return buckets.queued_tokens_of(Priority.INTERACTIVE) if priority is Priority.INTERACTIVE else 0


def token_budget(
    bucket: Bucket, limits: BatchLimits, cost: CostModel, waiting_tokens: int, *, in_company: bool = False
) -> int:
    """Tokens of this bucket that fit the memory limit and the time target, stretched under a backlog.

    At least one row's.

    Args:
        bucket: Whose rate counts.
        limits: Of one batch.
        cost: Of this device.
        waiting_tokens: What else could go into this batch.
        in_company: People ask these seconds: what fills the batch beyond that stays short.
    """
    if in_company:
        short = _COMPANY_SHARE * limits.target_seconds
        usual = cost.tokens_within(short, bucket.max_tokens, _COMPANY_LEAST_SHARE)
    else:
        usual = cost.tokens_within(limits.target_seconds, bucket.max_tokens)
    if waiting_tokens > usual:
        usual = min(waiting_tokens, cost.tokens_within(MOST_STRETCH * limits.target_seconds, bucket.max_tokens))
    return max(min(limits.max_tokens, usual), bucket.max_tokens)


def whole_step(steps: Sequence[int], budget: int, queued_tokens: int) -> int:
    """The budget, less what would only begin to fill the device's next step: that goes with the batch after it.

    Args:
        steps: See BatchLimits.
        budget: In tokens.
        queued_tokens: Where they all fit the budget, nothing would be left over to go with.
    """
    place = bisect_right(steps, budget)
    return steps[place - 1] if place and queued_tokens > budget else budget


def lowered(limits: BatchLimits, *, failed_tokens: int, longest_row: int) -> BatchLimits:
    """After a batch of so many tokens, padding included, did not fit the device's memory: half of it, for good."""
    return replace(limits, max_tokens=max(longest_row, min(limits.max_tokens, failed_tokens // 2)))


def busy_rate(cost: CostModel, limits: BatchLimits) -> float | None:
    """Tokens per second under a backlog; None before anything was measured."""
    return cost.full_batch_rate(MOST_STRETCH * limits.target_seconds)


def _seed(waiting: list[Bucket], limits: BatchLimits, cost: CostModel, now: float) -> tuple[Bucket, str]:
    stale = [bucket for bucket in waiting if _stale_at(bucket, limits) <= now]
    if stale:
        return min(stale, key=lambda bucket: bucket.due_at), "stale"
    full = [bucket for bucket in waiting if _is_full(bucket, limits, cost)]
    return max(full or waiting, key=_interactive_then_largest), "full" if full else "largest"


def _fill(buckets: list[Bucket], rows: int, budget: int, reason: str) -> BatchPlan:
    """Rows of these buckets, the earliest due first, until nothing more fits."""
    slices: list[RunSlice] = []
    due_at = [bucket.due_at for bucket in buckets]
    while rows > 0 and budget > 0 and (earliest := min(due_at)) < _NEVER:
        place = due_at.index(earliest)
        taken = buckets[place].take(max_rows=rows, max_tokens=budget, force=not slices)
        if taken is None:
            due_at[place] = _NEVER
            continue
        due_at[place] = buckets[place].due_at
        slices.append(taken)
        rows -= len(taken.indices)
        budget -= taken.tokens
    return BatchPlan(tuple(slices), max(one.bucket for one in slices), reason)


def _stale_at(bucket: Bucket, limits: BatchLimits) -> float:
    """When the bucket may no longer be passed over; batch work is patient."""
    waits = (limits.stale_after_seconds, _BATCH_PATIENCES * limits.patience_seconds)
    heads = [(lane.head, wait) for lane, wait in zip(bucket.lanes, waits, strict=True)]
    return min(head.request.arrived_at + wait for head, wait in heads if head is not None)


def _is_full(bucket: Bucket, limits: BatchLimits, cost: CostModel) -> bool:
    """A batch from this bucket would leave nothing of its usual budget unused."""
    usual = token_budget(bucket, limits, cost, 0)
    return bucket.queued_tokens >= usual or bucket.queued_rows >= limits.max_rows


def _interactive_then_largest(bucket: Bucket) -> tuple[bool, int]:
    return bucket.lanes[Priority.INTERACTIVE].queued_rows > 0, bucket.queued_tokens
