"""Which gates open, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_operator.readiness import gate_changes

from tests.operator.builders import health, starting_pod

PHASES = ["starting", "downloading", "loading", "warming", "serving", "draining", "failed"]


def opened(mode: str, *pods: object) -> list[str]:
    return [change.pod_name for change in gate_changes(mode, pods) if change.opens]  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", PHASES)
def test_at_startup_only_a_serving_pod_is_opened(phase: str) -> None:
    assert opened("Startup", starting_pod(says=health(phase))) == (["minilm-a"] if phase == "serving" else [])


def test_a_pod_that_serves_but_refuses_is_not_opened_yet() -> None:
    assert opened("Startup", starting_pod(says=health(is_accepting=False))) == []


def test_a_silent_pod_is_not_opened() -> None:
    assert opened("Startup", starting_pod(says=None)) == []


def test_a_gate_that_the_kubelet_reset_is_opened_again() -> None:
    assert opened("Startup", starting_pod(says=health(), gate_is_open=False)) == ["minilm-a"]


def test_without_gates_those_that_are_left_are_opened_at_once() -> None:
    assert opened("Off", starting_pod(says=None), starting_pod("b", has_gate=False)) == ["minilm-a"]


@given(
    mode=st.sampled_from(["Startup", "Off"]),
    phase=st.sampled_from(PHASES),
    has_gate=st.booleans(),
    is_open=st.sampled_from([None, False, True]),
    is_being_deleted=st.booleans(),
    speaks=st.booleans(),
)
def test_only_transitions_are_written_and_nothing_is_ever_closed(
    mode: str, phase: str, has_gate: bool, is_open: bool | None, is_being_deleted: bool, speaks: bool
) -> None:
    pod = starting_pod(
        says=health(phase) if speaks else None,
        has_gate=has_gate,
        gate_is_open=is_open,
        is_being_deleted=is_being_deleted,
    )
    changes = gate_changes(mode, [pod])  # type: ignore[arg-type]
    assert all(change.opens for change in changes)
    if not has_gate or is_open or is_being_deleted:
        assert changes == []
