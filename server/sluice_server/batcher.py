"""What to compute next. Pure: queues, limits and the time in, one batch or a wait out."""

from dataclasses import dataclass

from sluice_server.buckets import Bucket, Buckets
from sluice_server.cost import CostModel
from sluice_server.requests import BatchPlan, RunSlice, Wait


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may be.

    Attributes:
        max_rows: Rows per batch.
        max_tokens: Tokens per batch, padding included.
        target_seconds: Time that one batch should take.
        stale_after_seconds: A row that waited so long goes first.
        mixes_buckets: The packed layout fills a batch from every bucket.
    """

    max_rows: int
    max_tokens: int
    target_seconds: float
    stale_after_seconds: float
    mixes_buckets: bool


def next_batch(
    buckets: Buckets, limits: BatchLimits, cost: CostModel, now: float, *, device_idle: bool
) -> BatchPlan | Wait:
    """Chooses the next batch: stale rows (earliest deadline first), then a full bucket, then, idle, the largest.

    Rows of requests that ended are gone from the buckets before this is called. The chosen rows are taken
    out of the buckets.

    Args:
        buckets: The queues.
        limits: What one batch may be.
        cost: How long so many tokens of a bucket take.
        now: The server's clock, in seconds.
        device_idle: Nothing runs and nothing is prefetched.
    """
    waiting = [bucket for bucket in buckets if bucket.queued_rows]
    if not waiting:
        return Wait(None)
    stale = [bucket for bucket in waiting if _oldest(bucket) + limits.stale_after_seconds <= now]
    if stale:
        return _fill(buckets, min(stale, key=_urgency), limits, cost, "stale")
    full = [bucket for bucket in waiting if _fullness(bucket, buckets, limits, cost) >= 1.0]
    if full:
        return _fill(buckets, max(full, key=lambda b: b.queued_tokens), limits, cost, "full")
    if device_idle:
        return _fill(buckets, max(waiting, key=lambda b: b.queued_tokens), limits, cost, "idle")
    return Wait(min(map(_oldest, waiting)) + limits.stale_after_seconds)


def token_budget(bucket: Bucket, limits: BatchLimits, cost: CostModel) -> int:
    """Tokens of this bucket that fit both the memory limit and the time target; at least one row's."""
    return max(
        min(limits.max_tokens, cost.tokens_within(limits.target_seconds, bucket.max_tokens)),
        bucket.max_tokens,
    )


def _fill(buckets: Buckets, seed: Bucket, limits: BatchLimits, cost: CostModel, reason: str) -> BatchPlan:
    budget = token_budget(seed, limits, cost)
    rows, order = limits.max_rows, [seed]
    if limits.mixes_buckets:
        order += sorted((b for b in buckets if b is not seed and b.queued_rows), key=_oldest)
    else:
        # The padded layout computes the whole rectangle.
        rows = min(rows, max(1, budget // seed.max_tokens))
    slices: list[RunSlice] = []
    for bucket in order:
        if rows <= 0 or budget <= 0:
            break
        taken = bucket.take(max_rows=rows, max_tokens=budget, at_least_one=not slices)
        slices += taken
        rows -= sum(len(one.indices) for one in taken)
        budget -= sum(one.tokens for one in taken)
    return BatchPlan(tuple(slices), max(one.bucket for one in slices), reason)


def _fullness(bucket: Bucket, buckets: Buckets, limits: BatchLimits, cost: CostModel) -> float:
    """1 and above: a batch from this bucket would leave nothing of its budget unused."""
    tokens = buckets.queued_tokens if limits.mixes_buckets else bucket.queued_tokens
    by_tokens = tokens / token_budget(bucket, limits, cost)
    return max(by_tokens, bucket.queued_rows / limits.max_rows)


def _oldest(bucket: Bucket) -> float:
    return min((run.request.arrived_at for run in bucket.heads()), default=float("inf"))


def _urgency(bucket: Bucket) -> tuple[float, float]:
    """Earliest deadline first; among those without one, the longest wait."""
    return min((run.request.deadline for run in bucket.heads()), default=float("inf")), _oldest(bucket)
