"""Tokens are reserved when a request is admitted, and given back once."""

import pytest
from sluice_server.admission import SURE_SHARE, AdmissionLimits, Load
from sluice_server.backpressure import LatencyGate
from sluice_server.counters import Counters
from sluice_server.errors import DeadlineTooShortError, OverloadedError
from sluice_server.intake import Intake, IntakeConfig
from sluice_server.requests import Priority, Terms

IDLE = Load(0, 0.0, 0.0, 1.0)
ANYTIME = Terms()


def new_intake(gate: LatencyGate | None = None) -> tuple[Intake, Counters]:
    counters = Counters()
    return Intake(IntakeConfig(AdmissionLimits(1000 / SURE_SHARE, 500), gate, 1.0), counters), counters


def admit(intake: Intake, tokens: int, load: Load = IDLE, terms: Terms = ANYTIME, *, now: float = 0) -> None:
    intake.admit(tokens, load, terms, now)


def test_admitted_tokens_are_reserved_until_they_are_computed_or_dropped() -> None:
    intake, counters = new_intake()
    admit(intake, 100)
    intake.settle(100, 90, is_repeated=False)
    intake.complete(60)
    intake.drop(30)
    assert intake.reserved_tokens == 0
    assert (counters.admitted_tokens, counters.expired_tokens) == (90, 30)


def test_refused_tokens_are_not_reserved() -> None:
    intake, _ = new_intake()
    with pytest.raises(
        OverloadedError, match="1000 ms to drain and this request counts as 100 ms, 1000 ms are allowed"
    ):
        admit(intake, 10, Load(400, 1000.0, 1000.0, 1.0))
    with pytest.raises(DeadlineTooShortError):
        admit(intake, 10, Load(400, 100.0, 100.0, 1.0), Terms(deadline=0.05))
    assert intake.reserved_tokens == 0


def slow_intake() -> Intake:
    """One request is under way, and the last twenty took 250 ms."""
    intake, _ = new_intake(LatencyGate(100, 200))
    admit(intake, 10)
    for _ in range(20):
        intake.note_latency(0.0, 250.0)
    return intake


def test_the_latency_gate_refuses_with_the_latency_in_words() -> None:
    with pytest.raises(OverloadedError, match="the P95 latency is 250 ms, 200 ms are allowed"):
        admit(slow_intake(), 10)


def test_a_closed_latency_gate_opens_as_soon_as_nothing_is_under_way() -> None:
    intake = slow_intake()
    assert intake.would_refuse(IDLE, 0.5)
    intake.complete(10)
    assert not intake.would_refuse(IDLE, 0.5), "only new answers can say that it is fast again"
    admit(intake, 10, now=0.5)


def test_between_the_limits_of_latency_batch_work_is_refused_first() -> None:
    intake, _ = new_intake(LatencyGate(100, 300))
    admit(intake, 10)
    for _ in range(20):
        intake.note_latency(0.0, 250.0)
    with pytest.raises(OverloadedError, match="the P95 latency is 250 ms, 100 ms are allowed"):
        admit(intake, 10, terms=Terms(Priority.BATCH))
    admit(intake, 10)


def test_what_requests_waited_before_is_known_for_a_second() -> None:
    intake, _ = new_intake()
    assert intake.accept_wait_ms(0.0) is None
    admit(intake, 10, IDLE, Terms(waited_ms=300.0), now=1.0)
    admit(intake, 10, IDLE, Terms(waited_ms=None), now=1.5)
    assert intake.accept_wait_ms(1.5) == 300.0
    assert intake.accept_wait_ms(2.1) is None


def test_it_says_that_it_refuses_where_it_refuses_for_what_requests_waited_before() -> None:
    intake, _ = new_intake()
    busy = Load(400, 700.0, 700.0, 1.0)
    assert not intake.would_refuse(busy, 1.0)
    with pytest.raises(OverloadedError, match="to one that waited 800 ms to be looked at"):
        admit(intake, 10, busy, Terms(waited_ms=800.0), now=1.0)
    assert intake.would_refuse(busy, 1.0)
    assert not intake.would_refuse(busy, 5.0), "nobody came since"
