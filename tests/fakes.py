"""Builders and fakes for the server's pure parts."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sluice_server.batcher import BatchLimits
from sluice_server.cost import CostModel, Measurement
from sluice_server.requests import Due, PendingRequest, Priority, TokenRows

NEVER = float("inf")
PACKED_LIMITS = BatchLimits(
    max_rows=512,
    max_tokens=4096,
    target_seconds=0.025,
    stale_after_seconds=0.05,
    patience_seconds=2.0,
    mixes_buckets=True,
)
SMALL_PACKED_LIMITS = replace(PACKED_LIMITS, max_rows=100, max_tokens=1000, target_seconds=0.02)


def token_rows(lengths: Sequence[int], *, first_id: int = 5) -> TokenRows:
    """Rows whose ids count upwards, so that a row put in the wrong place is seen."""
    total = sum(lengths)
    return TokenRows(np.arange(first_id, first_id + total, dtype=np.int32), np.array(lengths, dtype=np.int32))


def pending(
    lengths: Sequence[int],
    *,
    arrived_at: float = 0.0,
    deadline: float = NEVER,
    due: Due | None = None,
    priority: Priority = Priority.INTERACTIVE,
) -> PendingRequest:
    """One admitted request of rows of these lengths."""
    rows = token_rows(lengths)
    return PendingRequest(
        rows=rows,
        offsets=rows.offsets(),
        future=asyncio.Future(loop=_LOOP),
        arrived_at=arrived_at,
        deadline=deadline,
        due=due or Due(arrived_at, 0.0, NEVER),
        priority=priority,
        unfinished_rows=len(lengths),
    )


def steady_cost(
    boundaries: Sequence[int], *, tokens_per_second: float = 10_000, fixed_seconds: float = 0.0
) -> CostModel:
    """A device that computes every bucket at one rate."""
    cost = CostModel(tuple(boundaries))
    cost.seed([
        Measurement(bucket, tokens, fixed_seconds + tokens / tokens_per_second)
        for bucket in boundaries
        for tokens in (10, 1000)
    ])  # fmt: skip
    return cost


class FakeClock:
    """A clock that stands still until it is told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# A future needs a loop to belong to; nothing runs on this one.
_LOOP = asyncio.new_event_loop()
_LOOP.close()
