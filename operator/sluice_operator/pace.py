"""How many gates may be moved at once: a token bucket for all services of one operator. Pure.

An overload that hits many pods in the same moment would otherwise be a burst of writes, and each makes endpoints
change at every node. Gates that wait are decided anew when their turn comes, by what is so then. Only what load moves
is paced: a pod that comes up, a pod of other vectors and what a person asked for do not wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sluice_operator.reasons import GateReason

PACED = frozenset({GateReason.OVERLOADED, GateReason.RELIEVED, GateReason.SATURATED, GateReason.TOO_MANY_CLOSED})
"""Reasons of gate changes that follow the load."""
BURST_SHARE = 0.2
"""Part of a second's writes that may come at once; the rest of the limit is the rate at which the bucket fills."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A bucket as of a moment; a full one holds `burst` writes.

    In any span of one second at most `burst + rate` writes are taken, and that is the limit.
    """

    burst: float
    rate: float
    """Writes per second."""
    available: float
    at: float
    """Seconds on the monotonic clock."""

    @classmethod
    def of(cls, most_per_second: float, now: float) -> Pace:
        """A full bucket for at most so many writes in any second; at least 2."""
        burst = max(1.0, most_per_second * BURST_SHARE)
        return cls(burst, most_per_second - burst, burst, now)

    def take(self, now: float) -> tuple[Pace, bool]:
        """The bucket after one more write, and whether that may be made; a clock that goes back fills nothing."""
        at = max(now, self.at)
        available = min(self.burst, self.available + (at - self.at) * self.rate)
        if available < 1:
            return replace(self, available=available, at=at), False
        return replace(self, available=available - 1, at=at), True

    def pause_seconds(self, waiting: int) -> float:
        """How long each of so many services should wait until it asks again: then a full bucket is there for each."""
        return waiting * self.burst / self.rate
