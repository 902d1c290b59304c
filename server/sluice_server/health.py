"""What the server says of itself. Pure: facts in, the document of GET /health out (proto/health.schema.json)."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sluice_server.backend import ModelInfo
from sluice_server.counters import Counters

PhaseName = Literal["starting", "downloading", "loading", "warming", "serving", "draining", "failed"]

# Above this share of a limit the server is degraded: it serves, and it is time for more replicas.
_DEGRADED_SHARE = 0.7
_BUSY_WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Phase:
    """Where in its life the server is.

    Attributes:
        name: One of the seven.
        reason: A sentence for a person, or None.
        step: Of `steps`, while warming.
    """

    name: PhaseName
    reason: str | None = None
    step: int | None = None
    steps: int | None = None


@dataclass(slots=True)
class BusyWindow:
    """What the device did in the last 10 s, or in the time since serving began where that is shorter."""

    _batches: deque[tuple[float, float, int]] = field(default_factory=deque)
    # Of the batches, so that each answer's estimate need not add them up.
    _seconds: float = 0.0
    _tokens: int = 0

    def add(self, start: float, end: float, tokens: int) -> None:
        """Notes one batch: its time on the device and its tokens; batches follow each other."""
        self._batches.append((start, end, tokens))
        self._seconds += end - start
        self._tokens += tokens

    def fraction(self, now: float, since: float | None) -> float | None:
        """Share of the time that the device was busy; None before serving began."""
        begin = self._begin(now, since)
        if begin is None:
            return None
        before = max(0.0, begin - self._batches[0][0]) if self._batches else 0.0
        return min(1.0, max(0.0, self._seconds - before) / (now - begin))

    def tokens_per_second(self, now: float, since: float | None) -> float | None:
        """What it computed, idle time included; None before serving began."""
        begin = self._begin(now, since)
        return None if begin is None else self._tokens / (now - begin)

    def _begin(self, now: float, since: float | None) -> float | None:
        """Of the window; what ended before is forgotten."""
        if since is None or now <= since:
            return None
        begin = max(now - _BUSY_WINDOW_SECONDS, since)
        while self._batches and self._batches[0][1] < begin:
            start, end, tokens = self._batches.popleft()
            self._seconds -= end - start
            self._tokens -= tokens
        return begin


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the document is made of, at one moment.

    Attributes:
        now: On the server's clock, in seconds.
        p95_ms: Of the window; None while unknown.
        accept_wait_ms: How long calls wait until they are looked at; None while nobody came lately.
        p95_soft_limit_ms: None where latency backpressure is off.
        max_drain_ms: None where throughput backpressure is off.
        refusing: A request of one token would be refused now.
    """

    phase: Phase
    now: float
    started_at: float
    boot_id: str
    version: str
    model_uri: str
    queued_tokens: int
    pending_batches: int
    counters: Counters
    refusing: bool
    drain_ms: float | None
    rate: float | None
    p95_ms: float | None
    accept_wait_ms: float | None
    busy_fraction: float | None
    last_forward_at: float | None
    max_drain_ms: float | None
    p95_soft_limit_ms: float | None
    info: ModelInfo | None
    fingerprint: str | None


def status(facts: Facts) -> Literal["healthy", "degraded", "overloaded"]:
    """overloaded: refuses work; degraded: above 70 % of a limit; healthy: neither."""
    if facts.refusing:
        return "overloaded"
    slow = facts.drain_ms is not None and _above((facts.accept_wait_ms or 0.0) + facts.drain_ms, facts.max_drain_ms)
    late = facts.p95_ms is not None and _above(facts.p95_ms, facts.p95_soft_limit_ms)
    return "degraded" if slow or late else "healthy"


def document(facts: Facts) -> dict[str, Any]:
    """The body of GET /health: every key always there, unknown as null."""
    info, counters = facts.info, facts.counters
    return {
        "status": status(facts),
        "accepting_requests": facts.phase.name == "serving" and not facts.refusing,
        "queued_tokens": facts.queued_tokens,
        "service_rate_tokens_per_sec": facts.rate,
        "estimated_drain_time_ms": facts.drain_ms,
        "p95_server_side_latency_ms": facts.p95_ms,
        "gpu_queue_depth": facts.pending_batches,
        "embedding_dimension": info.dimension if info else None,
        "uptime_seconds": facts.now - facts.started_at,
        "phase": {
            "name": facts.phase.name,
            "reason": facts.phase.reason,
            "step": facts.phase.step,
            "steps": facts.phase.steps,
        },
        "busy_fraction": facts.busy_fraction,
        "offered_tokens_total": counters.offered_tokens,
        "admitted_tokens_total": counters.admitted_tokens,
        "rejected_tokens_total": counters.rejected_tokens_total,
        "expired_tokens_total": counters.expired_tokens,
        "computed_tokens_total": counters.computed_tokens,
        "padded_tokens_total": counters.padded_tokens,
        "last_forward_age_ms": None if facts.last_forward_at is None else 1000 * (facts.now - facts.last_forward_at),
        "boot_id": facts.boot_id,
        "observed_at": datetime.now(UTC).isoformat(),
        "version": facts.version,
        "model": {
            "uri": facts.model_uri,
            "revision": info.revision if info else None,
            "fingerprint": facts.fingerprint,
            "max_input_tokens": info.max_input_tokens if info else None,
        },
    }


def _above(value: float, limit: float | None) -> bool:
    return limit is not None and value > _DEGRADED_SHARE * limit
