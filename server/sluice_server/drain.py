"""How long until all that is reserved is computed: the one number that everything else is made of. Pure."""

from sluice_server.batcher import BatchLimits, token_budget
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
    rate = cost.full_batch_rate(limits.target_seconds)
    if rate:
        seconds += (reserved_tokens - flight.tokens - buckets.queued_tokens) / rate
    batches = sum(bucket.queued_tokens / token_budget(bucket, limits, cost) for bucket in buckets)
    return max(0.0, seconds + cost.seconds_per_batch * batches)
