"""How long gRPC's core is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.rpc.core.moderation import pause_seconds


def test_who_comes_to_an_idle_server_is_seen_at_once() -> None:
    assert pause_seconds(0.0) == 0.0


def test_while_nothing_is_known_nobody_waits() -> None:
    assert pause_seconds(None) == 0.0


def test_behind_a_queue_of_30_ms_it_is_a_twentieth_of_that() -> None:
    assert pause_seconds(30.0) == pytest.approx(0.0015)


def test_it_is_never_too_short_to_be_worth_it() -> None:
    assert pause_seconds(2.0) == 0.0


@given(st.floats(0, 1e9))
def test_it_is_never_felt(ahead_ms: float) -> None:
    assert 0 <= 1000 * pause_seconds(ahead_ms) <= min(40.0, 0.05 * ahead_ms)


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_longer_queue_never_shortens_it(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert pause_seconds(shorter) <= pause_seconds(longer)
