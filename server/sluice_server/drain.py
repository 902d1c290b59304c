"""How long until work is computed: the numbers that admission and scaling are made of. Pure."""

from dataclasses import dataclass

from sluice_server.batcher import MOST_STRETCH, BatchLimits, backlog_tokens, busy_rate, in_company, token_budget
from sluice_server.buckets import Buckets
from sluice_server.cost import CostModel
from sluice_server.flight import Flight
from sluice_server.requests import Priority


def drain_seconds(
    *, buckets: Buckets, flight: Flight, reserved_tokens: int, rate: float | None, now: float, queued: float
) -> float:
    """The rest of what the device has + what is queued + what is still being tokenized.

    Args:
        buckets: What is queued.
        flight: What is at the device.
        reserved_tokens: Admitted and not computed; above what is queued and at the device by the texts that
            are still being tokenized.
        rate: Of the device, in tokens per second; None before anything was measured.
        now: The server's clock, in seconds.
        queued: Seconds that what is queued takes; see queued_work().
    """
    seconds = flight.remaining_seconds(now) + queued
    in_tokenizer = reserved_tokens - flight.tokens - buckets.queued_tokens
    if in_tokenizer > 0 and rate:
        seconds += in_tokenizer / rate
    return max(0.0, seconds)


@dataclass(frozen=True, slots=True)
class QueuedWork:
    """What is queued, once the device has nothing else.

    Attributes:
        seconds: Until it is computed.
        batches: In which it is computed; the last one counts as far as it is full.
    """

    seconds: float = 0.0
    batches: float = 0.0


def queued_work(
    *, buckets: Buckets, cost: CostModel, limits: BatchLimits, now: float, priority: Priority
) -> QueuedWork:
    """Σ over buckets queued tokens / rate + the fixed cost of their batches, for the work of one priority.

    Args:
        buckets: What is queued.
        cost: Of this device.
        limits: Of one batch.
        now: The server's clock, in seconds.
        priority: Whose queued work counts.
    """
    if not buckets.queued_tokens_of(priority):
        return QueuedWork()
    seconds, batches = 0.0, 0.0
    company, backlog = in_company(buckets, now), backlog_tokens(buckets, now, priority)
    for bucket in buckets.waiting:
        lane = bucket.lanes[priority]
        if lane.queued_tokens:
            together = backlog if limits.mixes_buckets else min(backlog, bucket.queued_rows * bucket.max_tokens)
            seconds += cost.seconds(lane.queued_tokens, bucket.max_tokens) or 0.0
            budget = token_budget(bucket, limits, cost, together, in_company=company)
            # The row that does not fit any more leaves half of itself free.
            row_tokens = lane.queued_tokens / lane.queued_rows
            batches += lane.queued_tokens / max(row_tokens, budget - row_tokens / 2)
    return QueuedWork(seconds + cost.seconds_per_batch * batches, batches)


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
    *,
    buckets: Buckets,
    queued_batches: float,
    flight: Flight,
    cost: CostModel,
    limits: BatchLimits,
    now: float,
    coming_per_second: float,
) -> float:
    """By how much a request that comes now lives, on average, through more than what is queued.

    Until its batch is made, others join it: as many as come while the device is at what it has. And that batch costs
    beside its tokens what each does, of which what is queued bears a share. Where more waits than one batch holds, its
    own is half before it and half behind it.

    Args:
        buckets: What is queued.
        queued_batches: See QueuedWork.
        flight: What is at the device.
        cost: Of this device.
        limits: Of one batch.
        now: The server's clock, in seconds.
        coming_per_second: Tokens of new work.
    """
    rate = busy_rate(cost, limits)
    if not rate:
        return 0.0
    longest = cost.full_batch_seconds(MOST_STRETCH * limits.target_seconds)
    waiting = backlog_tokens(buckets, now) / rate
    # Under overload more comes than is admitted, and that is what the device does.
    coming = min(1.0, coming_per_second / rate) * flight.open_seconds(now)
    if waiting + coming > longest:
        return max(longest - waiting, longest / 2)
    fixed = cost.seconds_per_batch
    return coming * (1 - fixed / longest) + fixed * max(0.0, 1.0 - queued_batches)
