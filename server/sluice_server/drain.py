"""How long until work is computed: the numbers that admission and scaling are made of. Pure."""

from sluice_server.batcher import MOST_STRETCH, BatchLimits, backlog_tokens, busy_rate, in_company, token_budget
from sluice_server.buckets import Buckets
from sluice_server.cost import CostModel
from sluice_server.flight import Flight
from sluice_server.requests import Priority


def drain_seconds(
    *,
    buckets: Buckets,
    flight: Flight,
    reserved_tokens: int,
    cost: CostModel,
    limits: BatchLimits,
    now: float,
    priorities: tuple[Priority, ...] = tuple(Priority),
) -> float:
    """Σ over buckets queued tokens / rate + the fixed cost of their batches + the rest of what the device has.

    Args:
        buckets: What is queued.
        flight: What is at the device.
        reserved_tokens: Admitted and not computed; above what is queued and at the device by the texts that
            are still being tokenized.
        cost: Of this device.
        limits: Of one batch.
        now: The server's clock, in seconds.
        priorities: Whose queued work counts.
    """
    seconds, batches = flight.remaining_seconds(now), 0.0
    company, waiting = in_company(buckets, now), buckets.waiting
    for priority in priorities:
        if not buckets.queued_tokens_of(priority):
            continue
        backlog = backlog_tokens(buckets, now, priority)
        for bucket in waiting:
            tokens = bucket.lanes[priority].queued_tokens
            if tokens:
                together = backlog if limits.mixes_buckets else min(backlog, bucket.queued_rows * bucket.max_tokens)
                seconds += cost.seconds(tokens, bucket.max_tokens) or 0.0
                budget = token_budget(bucket, limits, cost, together, in_company=company)
                # The row that does not fit any more leaves half of itself free.
                row_tokens = tokens / bucket.lanes[priority].queued_rows
                batches += tokens / max(row_tokens, budget - row_tokens / 2)
    in_tokenizer = reserved_tokens - flight.tokens - buckets.queued_tokens
    if in_tokenizer > 0 and (rate := busy_rate(cost, limits)):
        seconds += in_tokenizer / rate
    return max(0.0, seconds + cost.seconds_per_batch * batches)


def filling_seconds(*, buckets: Buckets, cost: CostModel, limits: BatchLimits, now: float) -> float:
    """By how much later arrivals may lengthen the batch that a new request goes in.

    A request is done when its batch is, and the batch is filled up behind it: by a whole batch under a backlog, by
    less the emptier the queue.
    """
    rate = busy_rate(cost, limits)
    if not rate:
        return 0.0
    usual, longest = (cost.full_batch_seconds(f * limits.target_seconds) for f in (1.0, MOST_STRETCH))
    waiting = backlog_tokens(buckets, now) / rate
    return min(1.0, waiting / usual) * min(max(waiting, usual), longest)


def joining_seconds(
    *, buckets: Buckets, flight: Flight, cost: CostModel, limits: BatchLimits, now: float, busy_fraction: float
) -> float:
    """By how much those who will come lengthen, on average, what a request lives through that comes now.

    Until its batch begins, others join it: as many as come while the device is at what it has. Where more waits than
    one batch holds, its own is half before it and half behind it.

    Args:
        buckets: What is queued.
        flight: What is at the device.
        cost: Of this device.
        limits: Of one batch.
        now: The server's clock, in seconds.
        busy_fraction: Of the device lately: the share of its time that new work fills.
    """
    rate = busy_rate(cost, limits)
    if not rate:
        return 0.0
    longest = cost.full_batch_seconds(MOST_STRETCH * limits.target_seconds)
    waiting, coming = backlog_tokens(buckets, now) / rate, busy_fraction * flight.remaining_seconds(now)
    return coming if waiting + coming <= longest else max(longest - waiting, longest / 2)
