"""How long until all that is reserved is computed: the one number that everything else is made of. Pure."""

from sluice_server.batcher import BatchLimits
from sluice_server.buckets import Buckets
from sluice_server.cost import CostModel
from sluice_server.flight import Flight


def drain_seconds(
    *, buckets: Buckets, flight: Flight, reserved_tokens: int, cost: CostModel, limits: BatchLimits, now: float
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
    """
    seconds = flight.remaining_seconds(now)
    for bucket in buckets:
        seconds += cost.seconds(bucket.queued_tokens, bucket.max_tokens) or 0.0
    queued = buckets.queued_tokens
    rate = cost.full_batch_rate(limits.target_seconds)
    if rate:
        seconds += (reserved_tokens - flight.tokens - queued) / rate
        seconds += cost.fixed_seconds * _batches(queued, buckets, cost, limits)
    return max(0.0, seconds)


def _batches(tokens: int, buckets: Buckets, cost: CostModel, limits: BatchLimits) -> int:
    """How many batches so many queued tokens make."""
    largest = max(bucket.max_tokens for bucket in buckets)
    per_batch = min(limits.max_tokens, max(largest, cost.tokens_within(limits.target_seconds, largest)))
    return -(-tokens // per_batch)
