"""What is known of time: how fast the device is, when the queue will be empty, what that means for a request. Pure."""

from sluice_server.admission import Load
from sluice_server.batcher import BatchLimits, busy_rate
from sluice_server.buckets import Buckets
from sluice_server.cost import CostModel
from sluice_server.drain import drain_seconds, filling_seconds, joining_seconds
from sluice_server.flight import Flight
from sluice_server.requests import Priority

_ALL = tuple(Priority)


class Estimates:
    """Over the queues and the batches under way; unknown until there are limits, which come with the warm-up.

    Args:
        buckets: What is queued.
        flight: What is at the device.
        cost: Of the device.
    """

    def __init__(self, buckets: Buckets, flight: Flight, cost: CostModel) -> None:
        self.limits: BatchLimits | None = None
        self._buckets, self._flight, self._cost = buckets, flight, cost

    def service_rate(self) -> float | None:
        """Tokens per second while the device is busy with full batches; None before anything was measured."""
        return busy_rate(self._cost, self.limits) if self.limits else None

    def drain_ms(self, reserved_tokens: int, now: float, busy_fraction: float | None) -> float | None:
        """Time until all that is reserved is computed, and what will have joined it; None before anything was measured.

        Args:
            reserved_tokens: Admitted and not computed.
            now: The server's clock, in seconds.
            busy_fraction: Of the device lately; None is unknown.
        """
        ahead_ms = self._ahead_ms(_ALL, reserved_tokens, now)
        if ahead_ms is None or self.limits is None or not reserved_tokens:
            return ahead_ms
        return ahead_ms + 1000 * joining_seconds(
            buckets=self._buckets,
            flight=self._flight,
            cost=self._cost,
            limits=self.limits,
            now=now,
            busy_fraction=busy_fraction or 0.0,
        )

    def load(self, tokens: int, priority: Priority, reserved_tokens: int, now: float) -> Load:
        """What a request of so many tokens would meet."""
        rate = self.service_rate()
        work_ms = 1000 * tokens / rate if rate else None
        own_ms = None if work_ms is None else work_ms + 1000 * self._cost.seconds_per_batch
        overtakes = priority is Priority.INTERACTIVE and self._buckets.queued_tokens_of(Priority.BATCH) > 0
        everything = self._ahead_ms(_ALL, reserved_tokens, now)
        ahead_ms = self._ahead_ms((Priority.INTERACTIVE,), reserved_tokens, now) if overtakes else everything
        return Load(reserved_tokens, everything, ahead_ms, own_ms, self._filling_ms(now), work_ms)

    def _ahead_ms(self, priorities: tuple[Priority, ...], reserved_tokens: int, now: float) -> float | None:
        """Time until what is queued of these priorities now, and what the device has, is computed."""
        if self.limits is None:
            return None
        if not reserved_tokens:
            return 0.0
        return 1000 * drain_seconds(
            buckets=self._buckets,
            flight=self._flight,
            reserved_tokens=reserved_tokens,
            cost=self._cost,
            limits=self.limits,
            now=now,
            priorities=priorities,
        )

    def _filling_ms(self, now: float) -> float:
        if self.limits is None or not self._buckets.queued_tokens:
            return 0.0
        return 1000 * filling_seconds(buckets=self._buckets, cost=self._cost, limits=self.limits, now=now)
