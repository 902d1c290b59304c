"""What is asked of the server, on its way from the socket to the device and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import asyncio

NO_DEADLINE = float("inf")


class Priority(IntEnum):
    """Interactive work goes first, and under pressure batch work is refused first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms work is asked for.

    Attributes:
        priority: Interactive goes first.
        deadline: On the event loop's clock, which all processes of a machine share; NO_DEADLINE where there is none.
        is_repeated: It was asked before and refused, so that it is no new demand.
        waited_ms: From when it came until the server saw it; None while unknown.
    """

    priority: Priority = Priority.INTERACTIVE
    deadline: float = NO_DEADLINE
    is_repeated: bool = False
    waited_ms: float | None = None


def running_total(lengths: NDArray[np.integer]) -> list[int]:
    """The tokens of the first i rows, for i from 0 to their number.

    A list, as it is read an item at a time; for a request of one text, the usual one, an array took ten times as long.
    """
    return list(accumulate(lengths.tolist(), initial=0))


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Inputs of one request, ragged.

    Attributes:
        token_ids: int32 (total,), the rows one after the other.
        lengths: int32 (n,), each at least 1.
    """

    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]

    @property
    def total_tokens(self) -> int:
        """Over all rows."""
        return int(self.token_ids.size)

    def offsets(self) -> list[int]:
        """One more than rows: row i is token_ids[offsets[i]:offsets[i + 1]]."""
        return running_total(self.lengths)


@dataclass(frozen=True, slots=True)
class Due:
    """When the rows of a request should be done, on the server's clock: the earliest go to the device first.

    Attributes:
        first_at: Its first row.
        seconds_per_token: By which a row is due later for each token of the request that went before it.
        latest_at: All of its rows.
    """

    first_at: float
    seconds_per_token: float
    latest_at: float

    def after(self, tokens: int) -> float:
        """Of the row that has so many tokens of its request before it."""
        return min(self.latest_at, self.first_at + tokens * self.seconds_per_token)


@dataclass(frozen=True, slots=True)
class Computed:
    """Embeddings of rows.

    Attributes:
        pooled: float32 (n, dimension).
        unit: The same rows at unit length.
    """

    pooled: NDArray[np.float32]
    unit: NDArray[np.float32]

    @classmethod
    def empty_like(cls, batch: "Computed", rows: int) -> "Computed":
        """Room for rows of the same dimension."""
        shape = (rows, batch.pooled.shape[1])
        return cls(np.empty(shape, np.float32), np.empty(shape, np.float32))

    def rows(self, start: int, end: int) -> "Computed":
        """Some rows, without a copy."""
        return Computed(self.pooled[start:end], self.unit[start:end])

    def put(self, indices: NDArray[np.int64], rows: "Computed") -> None:
        """Copies rows to their places."""
        self.pooled[indices] = rows.pooled
        self.unit[indices] = rows.unit


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One admitted request while it waits and is computed. Only the event loop changes it.

    Attributes:
        rows: Its inputs.
        offsets: n + 1 of them: row i is token_ids[offsets[i]:offsets[i + 1]].
        future: Completed once, with None or with the error.
        arrived_at: On the server's clock, in seconds.
        deadline: On the same clock; infinity where the caller set none.
        due: When its rows should be done.
        priority: Of the whole request.
        unfinished_rows: Rows that are not computed yet.
        result: What was computed; None before its first batch is done.
        first_started_at: When its first row went to the device.
        compute_seconds: Device time of the batches that held its rows.
        drained_at: When what was still queued when its last batch was done will be computed, on the server's clock;
            None while unknown.
        expiry: Ends it at its deadline; None where the caller set none.
    """

    rows: TokenRows
    offsets: Sequence[int]
    future: "asyncio.Future[None]"
    arrived_at: float
    deadline: float
    due: Due
    priority: Priority
    unfinished_rows: int
    result: "Computed | None" = None
    first_started_at: float | None = None
    compute_seconds: float = 0.0
    drained_at: float | None = None
    expiry: "asyncio.TimerHandle | None" = None

    @property
    def is_over(self) -> bool:
        """Nobody waits for it any more: answered, failed, or its caller left. Any thread may ask."""
        return self.future.done()


@dataclass(slots=True, eq=False)
class ItemRun:
    """Rows of one request that share a bucket, in order; a batch takes a slice from its front.

    Attributes:
        request: Whose rows.
        indices: int64 (k,) positions in the request.
        cumulative_tokens: k + 1 of them: tokens of the first i rows; starts with 0.
        taken: Rows that went to the device already.
    """

    request: PendingRequest
    indices: NDArray[np.int64]
    cumulative_tokens: Sequence[int]
    taken: int = 0

    @property
    def due_at(self) -> float:
        """Of the next row."""
        return self.request.due.after(self.cumulative_tokens[self.taken])

    @property
    def remaining_rows(self) -> int:
        """Rows still queued."""
        return len(self.indices) - self.taken

    @property
    def remaining_tokens(self) -> int:
        """Tokens still queued."""
        return self.cumulative_tokens[-1] - self.cumulative_tokens[self.taken]


@dataclass(frozen=True, slots=True)
class RunSlice:
    """Rows of one request within one batch.

    Attributes:
        request: Whose rows.
        indices: int64 (k,) positions in the request.
        tokens: Of these rows.
        bucket: Their length bucket.
    """

    request: PendingRequest
    indices: NDArray[np.int64]
    tokens: int
    bucket: int


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What the batcher chose to compute next, and why.

    Attributes:
        slices: In the order of the batch's rows.
        bucket: Every row is at most so long.
        reason: earliest, stale, full or largest: what its first rows were chosen for.
    """

    slices: tuple[RunSlice, ...]
    bucket: int
    reason: str

    @property
    def tokens(self) -> int:
        """Of all rows, padding excluded."""
        return sum(one.tokens for one in self.slices)

    def left_out(self, now: float) -> NDArray[np.bool_] | None:
        """Rows whose request is over or past its deadline: bool (rows,), or None where somebody waits for each.

        Any thread may ask.
        """
        over = [one.request.is_over or one.request.deadline <= now for one in self.slices]
        return np.repeat(over, [len(one.indices) for one in self.slices]) if any(over) else None
