"""Batches at the device: what runs, what is prefetched, and how long both will take. Pure: the time is a parameter."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sluice_server.requests import BatchPlan

# One batch runs and one is prefetched.
MAX_PENDING = 2
# The next batch is made shortly before the running one should end: late enough for new arrivals to join it and
# for the urgent to overtake, early enough for the device not to wait.
_PREFETCH_SHARE = 0.15
_LEAST_PREFETCH_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Underway:
    """One batch at the device.

    Attributes:
        plan: What it computes.
        tokens_by_bucket: Of its rows.
        expected_seconds: What the cost model says; 0 before anything was measured.
    """

    plan: BatchPlan
    tokens_by_bucket: Mapping[int, int]
    expected_seconds: float


@dataclass(slots=True)
class Flight:
    """Batches in the order in which the device computes them.

    Attributes:
        most: Batches at the device at once; more than two would only be further from those who come next.
        tokens: Of all batches at the device.
    """

    most: int = MAX_PENDING
    tokens: int = 0
    _batches: dict[int, Underway] = field(default_factory=dict)
    _running_since: float | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, number: int, batch: Underway, now: float) -> None:
        """The batch is handed to the device; it runs at once where nothing else does."""
        if not self._batches:
            self._running_since = now
        self._batches[number] = batch
        self.tokens += batch.plan.tokens

    def pop(self, number: int, now: float) -> Underway:
        """The batch is done; the next one, if there is one, runs now."""
        done = self._batches.pop(number)
        self.tokens -= done.plan.tokens
        self._running_since = now if self._batches else None
        return done

    def running_seconds(self, now: float) -> float:
        """How long the first batch has been computed; 0 where there is none."""
        return 0.0 if self._running_since is None else now - self._running_since

    def feed_at(self, now: float) -> float | None:
        """When the device should get its next batch; None where it has all that it may have."""
        if len(self._batches) >= min(self.most, MAX_PENDING):
            return None
        return now + self.open_seconds(now)

    def open_seconds(self, now: float) -> float:
        """How long others may still come into the batch after those at the device."""
        if not self._batches:
            return 0.0
        last = next(reversed(self._batches.values()))
        lead = max(_LEAST_PREFETCH_SECONDS, _PREFETCH_SHARE * last.expected_seconds)
        return max(0.0, self.remaining_seconds(now) - lead)

    def remaining_seconds(self, now: float) -> float:
        """Until all of them are done, as far as the cost model foresees it."""
        seconds, elapsed = 0.0, self.running_seconds(now)
        for one in self._batches.values():
            seconds += max(0.0, one.expected_seconds - elapsed)
            elapsed = 0.0
        return seconds


def tokens_by_bucket(plan: BatchPlan) -> dict[int, int]:
    """Tokens of a plan's rows, by their bucket."""
    tokens: dict[int, int] = {}
    for part in plan.slices:
        tokens[part.bucket] = tokens.get(part.bucket, 0) + part.tokens
    return tokens
