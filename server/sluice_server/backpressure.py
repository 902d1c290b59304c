"""Refusal by latency: a sliding window of what callers saw, and hysteresis. Pure: the clock is a parameter."""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

from sluice_server.requests import Priority

_MAX_SAMPLES = 4096
# Below so few samples a percentile means nothing: where the window holds fewer, those before them count, too, as long
# as they are not older than so many windows. Twenty big requests may take longer than the window.
_MIN_SAMPLES = 20
_OLDEST_WINDOWS = 10
_PERCENTILE = 0.95
# A closed stage opens again only clearly below the limit that closed it.
_REOPEN = 0.8
_SOFT_SHED_EVERY = 4


@dataclass(slots=True)
class LatencyWindow:
    """Server-side latencies of the last seconds, or the last few of a server that answers seldom.

    Kept sorted beside their order of arrival: every request asks for the percentile, and to look for it among four
    thousand took half a millisecond, longer than all the rest of a refusal.
    """

    seconds: float
    _samples: deque[tuple[float, float]] = field(default_factory=deque)
    _ascending: list[float] = field(default_factory=list)

    def add(self, now: float, latency_ms: float) -> None:
        """Notes one finished request."""
        if len(self._samples) == _MAX_SAMPLES:
            self._forget_first()
        self._samples.append((now, latency_ms))
        insort(self._ascending, latency_ms)

    def p95_ms(self, now: float) -> float | None:
        """The 95th percentile, between the two nearest samples; None while there are too few."""
        while self._samples and self._samples[0][0] < now - self.seconds * self._windows():
            self._forget_first()
        if len(self._ascending) < _MIN_SAMPLES:
            return None
        place, beyond = divmod(_PERCENTILE * (len(self._ascending) - 1), 1)
        below, above = self._ascending[int(place)], self._ascending[int(place) + 1]
        return below + beyond * (above - below)

    def _windows(self) -> float:
        return 1.0 if len(self._samples) > _MIN_SAMPLES else _OLDEST_WINDOWS

    def _forget_first(self) -> None:
        _, latency_ms = self._samples.popleft()
        del self._ascending[bisect_left(self._ascending, latency_ms)]


@dataclass(slots=True)
class LatencyGate:
    """Above the soft limit batch work and every fourth other request is refused, above the hard limit every one.

    | stage | becomes soft            | becomes hard | becomes open           |
    |-------|-------------------------|--------------|------------------------|
    | open  | p95 > soft              | p95 > hard   |                        |
    | soft  |                         | p95 > hard   | p95 < 0.8 soft, unknown|
    | hard  | p95 < 0.8 hard          |              | p95 < 0.8 soft, unknown|
    """

    soft_p95_ms: float
    hard_p95_ms: float
    stage: str = "open"
    _asked: int = 0

    def refuses(self, p95_ms: float | None, priority: Priority = Priority.INTERACTIVE) -> bool:
        """Decides on one request; unknown latency (nothing finished lately) refuses nobody."""
        self.stage = self.stage_at(p95_ms)
        if self.stage == "soft":
            if priority is Priority.BATCH:
                return True
            self._asked += 1
            return self._asked % _SOFT_SHED_EVERY == 0
        return self.stage == "hard"

    @property
    def limit_ms(self) -> float:
        """That its stage says is exceeded."""
        return self.hard_p95_ms if self.stage == "hard" else self.soft_p95_ms

    def stage_at(self, p95_ms: float | None) -> str:
        """The stage that this latency leads to; asking changes nothing."""
        if p95_ms is None or p95_ms < _REOPEN * self.soft_p95_ms:
            return "open"
        if p95_ms > self.hard_p95_ms:
            return "hard"
        if self.stage == "hard":
            return "hard" if p95_ms >= _REOPEN * self.hard_p95_ms else "soft"
        return "soft" if p95_ms > self.soft_p95_ms or self.stage == "soft" else "open"
