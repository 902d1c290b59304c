"""What was admitted and is not computed yet, and whether more is taken. The rules are pure and stand elsewhere."""

from dataclasses import dataclass

from sluice_server import admission
from sluice_server.admission import AdmissionLimits, Admit, Load, Refuse
from sluice_server.backpressure import LatencyGate, LatencyWindow
from sluice_server.counters import Counters
from sluice_server.errors import DeadlineTooShortError, OverloadedError
from sluice_server.requests import NO_DEADLINE, Priority, Terms
from sluice_server.returns import Returns

_LATELY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class IntakeConfig:
    """What may be taken in.

    Attributes:
        limits: What the queue may hold.
        latency_gate: None where latency backpressure is off.
        latency_window_seconds: Over which the P95 is taken.
    """

    limits: AdmissionLimits
    latency_gate: LatencyGate | None
    latency_window_seconds: float


class Intake:
    """Reserves the tokens of a request at the moment of the decision, and gives them back when they are done with.

    Args:
        config: What may be taken in.
        counters: Told of what became of every token.
    """

    def __init__(self, config: IntakeConfig, counters: Counters) -> None:
        self.reserved_tokens = 0
        self._config = config
        self._counters = counters
        self._latencies = LatencyWindow(config.latency_window_seconds)
        self._returns = Returns(config.limits.max_drain_ms)
        self._waited_ms, self._waited_at = 0.0, float("-inf")

    def admit(self, tokens: int, load: Load, terms: Terms, now: float) -> None:
        """Reserves the tokens, or refuses them.

        Raises:
            OverloadedError: The queue or the latency is too long.
            DeadlineTooShortError: The work would end after the caller's deadline.
        """
        if terms.waited_ms is not None:
            self._waited_ms, self._waited_at = terms.waited_ms, now
        self._check_latency(tokens, terms.priority, now)
        remaining_ms = None if terms.deadline == NO_DEADLINE else 1000 * (terms.deadline - now)
        verdict = self._decide(tokens, load, terms.priority, remaining_ms, terms.waited_ms)
        if isinstance(verdict, Refuse):
            if verdict.reason == "deadline":
                raise DeadlineTooShortError(verdict.message)
            retry_after_ms = verdict.retry_after_ms
            if retry_after_ms is not None:
                retry_after_ms = self._returns.after_ms(retry_after_ms, load.work_ms, priority=terms.priority, now=now)
            raise OverloadedError(verdict.message, retry_after_ms, verdict.reason)
        self.reserved_tokens += tokens
        self._counters.admitted_tokens += tokens

    def settle(self, reserved_tokens: int, actual_tokens: int, *, is_repeated: bool) -> None:
        """Corrects a reservation once the texts are tokens."""
        more = actual_tokens - reserved_tokens
        self.reserved_tokens += more
        self._counters.admitted_tokens += more
        self._counters.ask(more, is_repeated=is_repeated)

    def drop(self, tokens: int) -> None:
        """Gives back tokens that nobody waits for any more; they are not computed."""
        self.reserved_tokens -= tokens
        self._counters.expired_tokens += tokens

    def complete(self, tokens: int) -> None:
        """Gives back tokens that the device is done with."""
        self.reserved_tokens -= tokens

    def note_latency(self, now: float, latency_ms: float) -> None:
        """A request was answered."""
        self._latencies.add(now, latency_ms)

    def p95_ms(self, now: float) -> float | None:
        """Of the window; None while it holds too few answers."""
        return self._latencies.p95_ms(now)

    def accept_wait_ms(self, now: float) -> float | None:
        """What the last request waited before the server saw it; None while nobody came lately that knows."""
        return self._waited_ms if now - self._waited_at <= _LATELY_SECONDS else None

    @property
    def max_drain_ms(self) -> float | None:
        """None where throughput backpressure is off."""
        return self._config.limits.max_drain_ms

    @property
    def soft_p95_ms(self) -> float | None:
        """None where latency backpressure is off."""
        return self._config.latency_gate.soft_p95_ms if self._config.latency_gate else None

    def would_refuse(self, load: Load, now: float) -> bool:
        """Whether a request of one token would be refused for this load."""
        gate = self._config.latency_gate
        verdict = self._decide(1, load, Priority.INTERACTIVE, None, self.accept_wait_ms(now))
        return isinstance(verdict, Refuse) or (
            gate is not None and self.reserved_tokens > 0 and gate.stage_at(self.p95_ms(now)) == "hard"
        )

    def _decide(
        self, tokens: int, load: Load, priority: Priority, remaining_ms: float | None, waited_ms: float | None
    ) -> Admit | Refuse:
        return admission.decide(
            tokens, load, self._config.limits, priority=priority, remaining_ms=remaining_ms, waited_ms=waited_ms
        )

    def _check_latency(self, tokens: int, priority: Priority, now: float) -> None:
        """Who comes to an idle server is taken: what was slow is over, and only new answers can say that it is."""
        gate = self._config.latency_gate
        if gate is not None and tokens and self.reserved_tokens:
            p95_ms = self._latencies.p95_ms(now)
            if gate.refuses(p95_ms, priority):
                message = f"the P95 latency is {p95_ms:.0f} ms, {gate.limit_ms:.0f} ms are allowed"
                raise OverloadedError(message, round(p95_ms or 0), "latency")
