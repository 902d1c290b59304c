"""The one word of /health: healthy, degraded or overloaded."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server import health
from sluice_server.counters import Counters
from sluice_server.health import BusyWindow, Facts, Phase

FACTS = Facts(
    phase=Phase("serving"), now=10.0, started_at=0.0, boot_id="b", version="0", model_uri="m", queued_tokens=0,
    pending_batches=0, counters=Counters(), refusing=False, drain_ms=0.0, rate=1000.0, p95_ms=None,
    accept_wait_ms=None, busy_fraction=0.0, last_forward_at=9.5, max_drain_ms=1000.0, p95_soft_limit_ms=100.0,
    info=None, fingerprint=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (FACTS, "healthy"),
        (replace(FACTS, drain_ms=700.0), "healthy"),
        (replace(FACTS, drain_ms=701.0), "degraded"),
        (replace(FACTS, drain_ms=None), "healthy"),
        (replace(FACTS, drain_ms=400.0, accept_wait_ms=300.0), "healthy"),
        (replace(FACTS, drain_ms=400.0, accept_wait_ms=301.0), "degraded"),
        (replace(FACTS, drain_ms=9999.0, max_drain_ms=None), "healthy"),
        (replace(FACTS, p95_ms=71.0), "degraded"),
        (replace(FACTS, p95_ms=71.0, p95_soft_limit_ms=None), "healthy"),
        (replace(FACTS, refusing=True), "overloaded"),
    ],
)
def test_the_status_says_how_near_the_limits_are(facts: Facts, word: str) -> None:
    assert health.status(facts) == word


@pytest.mark.parametrize(
    ("phase", "refusing", "accepts"), [("serving", False, True), ("serving", True, False), ("draining", False, False)]
)
def test_only_a_serving_server_that_refuses_nobody_accepts(
    phase: health.PhaseName, refusing: bool, accepts: bool
) -> None:
    facts = replace(FACTS, phase=Phase(phase), refusing=refusing)
    assert health.document(facts)["accepting_requests"] is accepts


def test_what_is_unknown_is_null_and_never_zero() -> None:
    unknown = replace(FACTS, drain_ms=None, rate=None, busy_fraction=None, last_forward_at=None)
    document = health.document(unknown)
    names = ("estimated_drain_time_ms", "service_rate_tokens_per_sec", "busy_fraction", "last_forward_age_ms")
    assert [document[name] for name in names] == [None] * 4


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=30))
def test_the_busy_fraction_is_the_sum_of_what_lies_in_the_window(gaps_and_batches: list[tuple[float, float]]) -> None:
    window, now, spans = BusyWindow(), 0.0, []
    for gap, batch in gaps_and_batches:
        start, now = now + gap, now + gap + batch
        window.add(start, now, 100)
        spans.append((start, now))
        begin = max(0.0, now - 10)
        busy = sum(max(0.0, end - max(begin, start)) for start, end in spans)
        fraction = window.fraction(now, since=0.0)
        assert fraction is None if now == 0 else fraction == pytest.approx(busy / (now - begin), abs=1e-6)


def two_batches() -> BusyWindow:
    window = BusyWindow()
    window.add(0.0, 2.0, 500)
    window.add(12.0, 13.0, 300)
    return window


def test_the_busy_fraction_is_of_the_last_ten_seconds_or_of_the_time_since_serving_began() -> None:
    assert two_batches().fraction(13.0, since=11.0) == pytest.approx(0.5)
    assert two_batches().fraction(13.0, since=0.0) == pytest.approx(0.1)
    assert two_batches().fraction(13.0, since=None) is None


def test_what_was_computed_a_second_is_of_the_same_time() -> None:
    assert two_batches().tokens_per_second(13.0, since=11.0) == pytest.approx(150)
    assert two_batches().tokens_per_second(13.0, since=0.0) == pytest.approx(30)
    assert two_batches().tokens_per_second(11.0, since=0.0) == pytest.approx(80)
    assert two_batches().tokens_per_second(13.0, since=None) is None
