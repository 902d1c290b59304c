"""Who is let in, and what those hear who are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.admission import SURE_SHARE, AdmissionLimits, Admit, Load, Refuse, decide
from sluice_server.requests import Priority

# Of which admission fills 2000 ms.
LIMITS = AdmissionLimits(max_drain_ms=2000 / SURE_SHARE, max_queued_tokens=10_000)
INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def verdict(
    tokens: int = 100,
    *,
    reserved: int = 1000,
    drain_ms: float | None = 100.0,
    ahead_ms: float | None = None,
    own_ms: float | None = 10.0,
    priority: Priority = INTERACTIVE,
    remaining_ms: float | None = None,
    limits: AdmissionLimits = LIMITS,
    waited_ms: float | None = None,
) -> Admit | Refuse:
    load = Load(reserved, drain_ms, drain_ms if ahead_ms is None else ahead_ms, own_ms)
    return decide(tokens, load, limits, priority=priority, remaining_ms=remaining_ms, waited_ms=waited_ms)


def test_a_short_queue_admits() -> None:
    assert verdict() == Admit()


def test_the_requests_own_size_counts() -> None:
    assert verdict(drain_ms=1500, own_ms=490) == Admit()
    refused = verdict(drain_ms=1500, own_ms=510)
    assert isinstance(refused, Refuse)
    assert (refused.reason, refused.retry_after_ms) == ("drain_limit", 610)
    assert "1500 ms to drain and this request counts as 510 ms, 2000 ms are allowed" in refused.message


@given(drain_ms=st.floats(0, 3000), one_ms=st.floats(0, 200), other_ms=st.floats(0, 200))
def test_of_requests_below_a_tenth_of_the_limit_a_short_one_is_not_admitted_where_a_long_one_is_refused(
    drain_ms: float, one_ms: float, other_ms: float
) -> None:
    assert verdict(drain_ms=drain_ms, own_ms=one_ms) == verdict(drain_ms=drain_ms, own_ms=other_ms)


def test_an_idle_server_takes_what_is_above_its_drain_limit() -> None:
    assert verdict(50_000, reserved=0, drain_ms=0.0, own_ms=5000) == Admit()


def test_an_idle_server_learns_from_work_that_it_expects_to_be_late() -> None:
    assert verdict(reserved=0, drain_ms=0.0, own_ms=150_000, remaining_ms=60_000) == Admit()


def test_the_token_cap_counts_what_is_asked() -> None:
    assert verdict(9_000, reserved=1_000) == Admit()
    refused = verdict(9_001, reserved=1_000)
    assert isinstance(refused, Refuse)
    assert refused.reason == "token_limit"


def test_batch_work_may_fill_half_of_each_limit() -> None:
    assert verdict(drain_ms=895, priority=BATCH) == Admit()
    assert isinstance(verdict(drain_ms=905, priority=BATCH), Refuse)
    assert verdict(drain_ms=905) == Admit()


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_for_good() -> None:
    assert verdict(drain_ms=65, remaining_ms=76 / SURE_SHARE) == Admit()
    refused = verdict(drain_ms=65, remaining_ms=74 / SURE_SHARE)
    assert isinstance(refused, Refuse)
    assert (refused.reason, refused.retry_after_ms) == ("deadline", None)


def test_what_may_still_join_its_batch_counts_against_a_deadline() -> None:
    load = Load(1000, 10.0, 10.0, 10.0, filling_ms=100.0)
    assert isinstance(decide(100, load, LIMITS, priority=INTERACTIVE, remaining_ms=119 / SURE_SHARE), Refuse)
    assert decide(100, load, LIMITS, priority=INTERACTIVE, remaining_ms=121 / SURE_SHARE) == Admit()


def test_only_the_work_before_its_own_turn_counts_against_a_deadline() -> None:
    assert verdict(drain_ms=900, ahead_ms=20, remaining_ms=50) == Admit()
    assert isinstance(verdict(drain_ms=900, ahead_ms=35, remaining_ms=50), Refuse)


def test_the_whole_queue_counts_against_the_drain_limit() -> None:
    assert isinstance(verdict(drain_ms=1995, ahead_ms=0), Refuse)


def test_what_it_waited_before_counts_against_the_drain_limit() -> None:
    # In milliseconds of what admission fills, as LIMITS are.
    waited_ms = 800 / SURE_SHARE
    assert verdict(drain_ms=1075, waited_ms=waited_ms) == Admit()
    refused = verdict(drain_ms=1085, waited_ms=waited_ms)
    assert isinstance(refused, Refuse)
    assert refused.reason == "drain_limit"
    assert refused.message == (
        "the queue needs 1085 ms to drain and this request counts as 120 ms, "
        "1200 ms are allowed to one that waited 1231 ms to be looked at"
    )


def test_however_long_it_waited_a_quarter_of_the_limit_is_left_so_that_the_device_has_work() -> None:
    assert verdict(drain_ms=445, waited_ms=60_000) == Admit()
    assert isinstance(verdict(drain_ms=455, waited_ms=60_000), Refuse)


def test_what_it_waited_is_no_part_of_a_deadline_that_is_told_as_what_remains() -> None:
    assert verdict(drain_ms=65, remaining_ms=76 / SURE_SHARE, waited_ms=1000) == Admit()


def test_without_throughput_backpressure_only_the_deadline_refuses() -> None:
    off = AdmissionLimits(max_drain_ms=None, max_queued_tokens=None)
    assert verdict(10**6, reserved=10**9, drain_ms=10**6, limits=off) == Admit()


def test_an_unknown_drain_time_is_not_taken_for_zero_by_the_token_cap() -> None:
    assert isinstance(verdict(9_500, drain_ms=None, own_ms=None), Refuse)


@given(
    tokens=st.integers(1, 20_000),
    reserved=st.integers(0, 20_000),
    drain_ms=st.floats(0, 10_000),
    own_ms=st.floats(0, 10_000),
    remaining_ms=st.none() | st.floats(0, 10_000),
)
def test_batch_work_is_never_admitted_where_interactive_work_is_refused(
    tokens: int, reserved: int, drain_ms: float, own_ms: float, remaining_ms: float | None
) -> None:
    values = {"reserved": reserved, "drain_ms": drain_ms, "own_ms": own_ms, "remaining_ms": remaining_ms}
    if verdict(tokens, **values, priority=BATCH) == Admit():
        assert verdict(tokens, **values) == Admit()


@pytest.mark.parametrize("drain_ms", [2001, 2500, 4000])
def test_the_longer_the_queue_the_later_the_retry(drain_ms: float) -> None:
    refused = verdict(drain_ms=drain_ms, own_ms=200.0)
    assert isinstance(refused, Refuse)
    assert refused.retry_after_ms == round(drain_ms - 1200)
