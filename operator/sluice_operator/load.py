"""What the fleet is asked to do and can do, measured from the pods' counters. Pure; the time is a parameter.

Offered load is counted from `offered_tokens_total`, which includes refused work: admitted work alone
saturates at the pods' limits and would stop the fleet from growing exactly when it is too small. Work that is asked
again after a refusal is not in it, where callers say so: the same work refused five times is not five pods' worth.

A window of 10 s sees a sudden rise in full after 10 s only. The rate of the last poll sees it at once; it is noisy,
so `scaling` believes it only while queues say the same.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.values import Pod, Report

LONG_WINDOW_SECONDS = 60.0
SHORT_WINDOW_SECONDS = 10.0
_BUSY_ENOUGH = 0.5
"""A service rate counts as measured only from a pod whose device was busy for this share of the last 10 s."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one pod was measured to compute under work."""

    tokens_per_second: float
    template_hash: str | None
    """The version of the spec that was measured; another model or machine has another capacity."""


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
    measured: Capacity | None = None
    """As last measured under work, now or before; None where pods of this version only were calibrated."""
    offered_last: float | None = None
    """Tokens per second between each pod's last two answers."""

    @property
    def pods_worth(self) -> float | None:
        """What clients ask for, in pods: the larger of both windows."""
        known = [offered for offered in (self.offered_short, self.offered_long) if offered is not None]
        return max(known) / self.capacity if known and self.capacity else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A pod's counter as of its last answer."""

    boot_id: str
    total: int
    at: float
    rate: float | None
    """Tokens per second since the answer before it."""


@dataclass(frozen=True, slots=True)
class _Increment:
    """What was offered between two answers of a pod, or of several."""

    begin: float
    end: float
    tokens: int

    def since(self, start: float) -> float:
        """The part after `start`, as if it had come evenly."""
        return self.tokens * min(1.0, max(0.0, self.end - start) / (self.end - self.begin))


class LoadWindow:
    """Turns the pods' counters into rates; one per service. A new boot_id starts its counters from zero."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._increments: deque[_Increment] = deque()
        self._started_at: float | None = None
        self._measured: Capacity | None = None
        self._busy_rates: dict[str, float] = {}

    def recall(self, measured: Capacity | None) -> None:
        """Takes over what was measured before the operator was started anew, until it measures itself."""
        self._measured = self._measured or measured

    def observe(self, pods: Iterable[Pod], now: float) -> Load:
        """Takes in what the pods said and returns the load as of `now`."""
        asked = [p for p in pods if p.is_running]
        health = {p.uid: p.report.health for p in asked if p.report is not None}
        for pod in asked:
            if pod.report is not None:
                self._take_in(pod.uid, pod.report)
        self._forget_all_but({p.uid for p in asked})
        if health and self._started_at is None:
            self._started_at = now
        while self._increments and self._increments[0].end <= now - LONG_WINDOW_SECONDS:
            self._increments.popleft()
        version, serving = _most_common(p for p in asked if p.is_serving)
        return Load(
            offered_short=self._rate(now, SHORT_WINDOW_SECONDS),
            offered_long=self._rate(now, LONG_WINDOW_SECONDS),
            capacity=self._capacity(serving, version),
            queued_tokens=sum(h.queued_tokens for h in health.values()),
            fresh_pods=len(health),
            asked_pods=len(asked),
            measured=self._measured,
            offered_last=self._last_rate(health.keys()),
        )

    def _take_in(self, uid: str, report: Report) -> None:
        """Notes what was offered to a pod since its last answer; its first one is only a baseline.

        After a silence it belongs to all of the silence: counted as of now, it would look like a surge.
        """
        said, at, known = report.health, report.received_at, self._seen.get(uid)
        rate = None if known is None else known.rate
        if known is not None and at > known.at:
            is_new = known.boot_id != said.boot_id
            tokens = said.offered_tokens_total if is_new else max(0, said.offered_tokens_total - known.total)
            rate = tokens / (at - known.at)
            self._note(_Increment(known.at, at, tokens))
        if known is None or at > known.at:
            self._seen[uid] = _Seen(said.boot_id, said.offered_tokens_total, at, rate)

    def _note(self, increment: _Increment) -> None:
        """Pods that answer the same polls share an increment."""
        last = self._increments[-1] if self._increments else None
        if last is not None and (last.begin, last.end) == (increment.begin, increment.end):
            self._increments[-1] = replace(last, tokens=last.tokens + increment.tokens)
        elif increment.tokens:
            self._increments.append(increment)

    def _last_rate(self, uids: Iterable[str]) -> float | None:
        rates = [seen.rate for uid in uids if (seen := self._seen[uid]).rate is not None]
        return sum(rates) if rates else None

    def _forget_all_but(self, uids: set[str]) -> None:
        for uid in self._seen.keys() - uids:
            del self._seen[uid]

    def _rate(self, now: float, window: float) -> float | None:
        """Tokens per second over the window; None until half a short window has been seen."""
        if self._started_at is None:
            return None
        span = min(window, now - self._started_at)
        if span < SHORT_WINDOW_SECONDS / 2:
            return None
        return sum(increment.since(now - span) for increment in self._increments) / span

    def _capacity(self, serving: list[Pod], version: str | None) -> float | None:
        """Measured under work; else as last measured; else as the warm-up calibrated it.

        A pod that is idle now counts as it was when it last was busy: at low load only slow pods are busy.
        """
        said = {p.uid: p.report.health for p in serving if p.report is not None}
        busy = {u: h.service_rate for u, h in said.items() if h.service_rate and (h.busy_fraction or 0) >= _BUSY_ENOUGH}
        self._busy_rates = {u: rate for u, rate in self._busy_rates.items() if u in said} | busy
        if busy:
            self._measured = Capacity(median(self._busy_rates.values()), version)
        elif serving and self._measured is not None and self._measured.template_hash != version:
            self._measured = None
        if self._measured is not None:
            return self._measured.tokens_per_second
        calibrated = [h.service_rate for h in said.values() if h.service_rate]
        return median(calibrated) if calibrated else None


def _most_common(pods: Iterable[Pod]) -> tuple[str | None, list[Pod]]:
    """The version of the spec that most pods run, and those pods."""
    pods = list(pods)
    counts = Counter(p.template_hash for p in pods)
    version = max(counts, key=lambda v: (counts[v], v or ""), default=None)
    return version, [p for p in pods if p.template_hash == version]
