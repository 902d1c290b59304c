"""What the fleet is asked to do and can do, measured from the pods' counters. Pure; the time is a parameter.

Offered load is counted from `offered_tokens_total`, which includes refused work: admitted work alone
saturates at the pods' limits and would stop the fleet from growing exactly when it is too small.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.values import Pod

LONG_WINDOW_SECONDS = 60.0
SHORT_WINDOW_SECONDS = 10.0
_BUSY_ENOUGH = 0.5
"""A service rate counts as measured only from a pod whose device was busy for this share of the last 10 s."""


@dataclass(frozen=True, slots=True)
class Load:
    """The fleet's load at one moment; None is unknown."""

    offered_short: float | None
    """Tokens per second over 10 s."""
    offered_long: float | None
    """Tokens per second over 60 s."""
    capacity: float | None
    """Tokens per second that one pod computes while busy."""
    queued_tokens: int
    """At all pods that answered, whether their gate is open or not."""
    fresh_pods: int
    asked_pods: int
    """Pods that should have answered."""


class LoadWindow:
    """Turns the pods' counters into rates; one per service. A new boot_id starts its counters from zero."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[str, int]] = {}
        self._increments: deque[tuple[float, int]] = deque()
        self._started_at: float | None = None
        self._known_capacity: float | None = None

    def observe(self, pods: Iterable[Pod], now: float) -> Load:
        """Takes in what the pods said and returns the load as of `now`."""
        asked = [p for p in pods if p.is_running]
        health = {p.uid: p.report.health for p in asked if p.report is not None}
        tokens = 0
        for uid, said in health.items():
            tokens += self._increment(uid, said.boot_id, said.offered_tokens_total)
        self._forget_all_but({p.uid for p in asked})
        if health and self._started_at is None:
            self._started_at = now
        if tokens:
            self._increments.append((now, tokens))
        while self._increments and self._increments[0][0] <= now - LONG_WINDOW_SECONDS:
            self._increments.popleft()
        serving = [h for h in health.values() if h.phase == "serving" and h.service_rate is not None]
        busy = [h.service_rate for h in serving if h.busy_fraction is not None and h.busy_fraction >= _BUSY_ENOUGH]
        return Load(
            offered_short=self._rate(now, SHORT_WINDOW_SECONDS),
            offered_long=self._rate(now, LONG_WINDOW_SECONDS),
            capacity=self._capacity([r for r in busy if r], [h.service_rate for h in serving if h.service_rate]),
            queued_tokens=sum(h.queued_tokens for h in health.values()),
            fresh_pods=len(health),
            asked_pods=len(asked),
        )

    def _increment(self, uid: str, boot_id: str, total: int) -> int:
        """Tokens offered to a pod since it was last seen; its first sight is only a baseline."""
        known = self._totals.get(uid)
        self._totals[uid] = (boot_id, total)
        if known is None:
            return 0
        return total if known[0] != boot_id else max(0, total - known[1])

    def _forget_all_but(self, uids: set[str]) -> None:
        for uid in self._totals.keys() - uids:
            del self._totals[uid]

    def _rate(self, now: float, window: float) -> float | None:
        """Tokens per second over the window; None until half a short window has been seen."""
        if self._started_at is None:
            return None
        span = min(window, now - self._started_at)
        if span < SHORT_WINDOW_SECONDS / 2:
            return None
        return sum(tokens for at, tokens in self._increments if at > now - span) / span

    def _capacity(self, busy: list[float], calibrated: list[float]) -> float | None:
        """Measured under work; else as last measured; else as the warm-up calibrated it."""
        if busy:
            self._known_capacity = median(busy)
        if self._known_capacity is not None:
            return self._known_capacity
        return median(calibrated) if calibrated else None
