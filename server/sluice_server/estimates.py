"""What is known of time: how fast the device is, when the queue will be empty, what that means for a request. Pure."""

from dataclasses import dataclass

from sluice_server.admission import Load
from sluice_server.batcher import BatchLimits, busy_rate, in_company
from sluice_server.buckets import Buckets
from sluice_server.cost import CostModel
from sluice_server.drain import drain_seconds, filling_seconds, joining_seconds, queued_work
from sluice_server.flight import Flight
from sluice_server.requests import Priority


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What the queue and the device's speed say as long as neither changes.

    Attributes:
        queued_seconds: Until what is queued is computed, once the device has nothing else.
        queued_batches: See QueuedWork.
        interactive_seconds: Of it, interactive work alone.
        filling_seconds: See filling_seconds().
        rate: See service_rate().
        seconds_per_batch: What every batch costs.
    """

    queued_seconds: float
    queued_batches: float
    interactive_seconds: float
    filling_seconds: float
    rate: float | None
    seconds_per_batch: float


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
        self._outlook: _Outlook | None = None
        self._outlook_of: object = None

    def service_rate(self) -> float | None:
        """Tokens per second while the device is busy with full batches; None before anything was measured."""
        return busy_rate(self._cost, self.limits) if self.limits else None

    def drain_ms(self, reserved_tokens: int, now: float, computed_per_second: float | None) -> float | None:
        """Time until all that is reserved is computed, and what will have joined it; None before anything was measured.

        Args:
            reserved_tokens: Admitted and not computed.
            now: The server's clock, in seconds.
            computed_per_second: Tokens that were lately, idle time included: so many come; None is unknown.
        """
        if self.limits is None:
            return None
        if not reserved_tokens:
            return 0.0
        outlook = self._look(self.limits, now)
        joining = joining_seconds(
            buckets=self._buckets,
            queued_batches=outlook.queued_batches,
            flight=self._flight,
            cost=self._cost,
            limits=self.limits,
            now=now,
            coming_per_second=computed_per_second or 0.0,
        )
        return self._ahead_ms(outlook.queued_seconds, reserved_tokens, outlook, now) + 1000 * joining

    def load(self, tokens: int, priority: Priority, reserved_tokens: int, now: float) -> Load:
        """What a request of so many tokens would meet."""
        if self.limits is None:
            return Load(reserved_tokens, None, None, None)
        outlook = self._look(self.limits, now)
        work_ms = 1000 * tokens / outlook.rate if outlook.rate else None
        own_ms = None if work_ms is None else work_ms + 1000 * outlook.seconds_per_batch
        if not reserved_tokens:
            return Load(0, 0.0, 0.0, own_ms, 1000 * outlook.filling_seconds, work_ms)
        everything = ahead_ms = self._ahead_ms(outlook.queued_seconds, reserved_tokens, outlook, now)
        if priority is Priority.INTERACTIVE and outlook.interactive_seconds != outlook.queued_seconds:
            ahead_ms = self._ahead_ms(outlook.interactive_seconds, reserved_tokens, outlook, now)
        return Load(reserved_tokens, everything, ahead_ms, own_ms, 1000 * outlook.filling_seconds, work_ms)

    def _ahead_ms(self, queued: float, reserved_tokens: int, outlook: _Outlook, now: float) -> float:
        """Time until so much of what is queued now, and what the device has, is computed."""
        return 1000 * drain_seconds(
            buckets=self._buckets,
            flight=self._flight,
            reserved_tokens=reserved_tokens,
            rate=outlook.rate,
            now=now,
            queued=queued,
        )

    def _look(self, limits: BatchLimits, now: float) -> _Outlook:
        """Under overload admission asks several times between two changes of the queue."""
        of = (self._buckets.changes, self._cost.changes, in_company(self._buckets, now), limits)
        if self._outlook is None or of != self._outlook_of:
            self._outlook, self._outlook_of = self._look_anew(limits, now), of
        return self._outlook

    def _look_anew(self, limits: BatchLimits, now: float) -> _Outlook:
        buckets, cost = self._buckets, self._cost
        interactive, batch = (
            queued_work(buckets=buckets, cost=cost, limits=limits, now=now, priority=priority)
            for priority in (Priority.INTERACTIVE, Priority.BATCH)
        )
        filling = filling_seconds(buckets=buckets, cost=cost, limits=limits, now=now) if buckets.queued_tokens else 0.0
        return _Outlook(
            queued_seconds=interactive.seconds + batch.seconds,
            queued_batches=interactive.batches + batch.batches,
            interactive_seconds=interactive.seconds,
            filling_seconds=filling,
            rate=busy_rate(cost, limits),
            seconds_per_batch=cost.seconds_per_batch,
        )
