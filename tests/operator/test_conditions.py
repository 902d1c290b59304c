"""The truth table: what was observed, and what a person is told."""

from datetime import timedelta
from typing import Any

import pytest
from sluice_operator import conditions
from sluice_operator.conditions import Condition
from sluice_operator.reasons import ConditionType, Reason
from sluice_operator.values import Health, Observation, Trouble

from tests.operator.builders import WALL_TIME, gated_pod, health, observation, pod, rollout, starting_pod

SCALING = Condition(ConditionType.SCALING_ACTIVE, holds=False, reason=Reason.FIXED, message="as asked")


def told(
    seen: Observation,
    *,
    desired: int | None = None,
    enough: int | None = None,
    blocked: Trouble | None = None,
    **troubles: Trouble,
) -> dict[str, tuple[bool | None, Reason]]:
    number = len(seen.live_pods) if desired is None else desired
    facts = conditions.gather(
        seen,
        template_hash="current",
        desired=number,
        enough=number if enough is None else enough,
        blocked=blocked,
        **troubles,
    )
    return {str(c.type): (c.holds, c.reason) for c in conditions.decide(facts, SCALING)}


def message(seen: Observation, kind: str, desired: int = 1) -> str:
    facts = conditions.gather(seen, template_hash="current", desired=desired, enough=desired, blocked=None)
    return next(c.message for c in conditions.decide(facts, SCALING) if c.type == kind)


def test_all_pods_serve() -> None:
    assert told(observation(pod("a", says=health()), pod("b", says=health()))) == {
        "Ready": (True, Reason.SERVING),
        "Available": (True, Reason.SERVING),
        "Progressing": (True, Reason.ROLLED_OUT),
        "ModelLoaded": (True, Reason.LOADED),
        "ScalingActive": (False, Reason.FIXED),
    }


@pytest.mark.parametrize(
    ("pod_fields", "reason"),
    [
        ({"is_running": False, "ip": None}, Reason.STARTING),
        ({}, Reason.UNREACHABLE),
        ({"says": health("starting")}, Reason.STARTING),
        ({"says": health("downloading")}, Reason.DOWNLOADING),
        ({"says": health("loading")}, Reason.LOADING),
        ({"says": health("warming")}, Reason.WARMING),
    ],
)
def test_a_first_pod_on_its_way(pod_fields: dict[str, Any], reason: Reason) -> None:
    assert told(observation(starting_pod(**pod_fields))) == {
        "Ready": (False, reason),
        "Available": (False, reason),
        "Progressing": (True, reason),
        "ModelLoaded": (False, reason),
        "ScalingActive": (False, Reason.FIXED),
    }


def test_a_pod_that_serves_and_waits_for_the_kubelet_has_loaded_its_model() -> None:
    seen = told(observation(starting_pod(says=health("serving"))))
    assert seen["ModelLoaded"] == (True, Reason.LOADED)
    assert seen["Ready"] == (False, Reason.NOT_ENOUGH_PODS_READY)


def test_a_failed_model_comes_before_anything_the_kubelet_says() -> None:
    failed = starting_pod("a", says=health("failed", phase_reason="no such file"))
    crashing = [starting_pod(n, trouble=Trouble(Reason.CRASH_LOOPING, "exit 1")) for n in "bc"]
    seen = observation(failed, *crashing)
    assert {told(seen)[kind] for kind in ("Ready", "Available", "Progressing", "ModelLoaded")} == {
        (False, Reason.MODEL_LOAD_FAILED)
    }
    assert "no such file" in message(seen, "ModelLoaded", desired=3)


@pytest.mark.parametrize(
    "reason", [Reason.IMAGE_PULL_FAILED, Reason.UNSCHEDULABLE, Reason.CRASH_LOOPING, Reason.MODEL_VOLUME_MISSING]
)
def test_trouble_of_a_pod_is_the_reason_of_everything_that_does_not_hold(reason: Reason) -> None:
    seen = told(observation(starting_pod(trouble=Trouble(reason, "as the kubelet says"))))
    assert {seen[kind] for kind in ("Ready", "Available", "Progressing", "ModelLoaded")} == {(False, reason)}


def test_trouble_with_one_more_pod_than_is_needed_leaves_the_service_ready() -> None:
    extra = starting_pod("b", trouble=Trouble(Reason.UNSCHEDULABLE, "no node"))
    seen = told(observation(pod("a", says=health()), extra), desired=2, enough=1)
    assert seen["Ready"] == (True, Reason.SERVING)
    assert seen["Progressing"] == (False, Reason.UNSCHEDULABLE)


def test_adding_pods_leaves_the_service_ready() -> None:
    seen = told(observation(pod("a", says=health()), starting_pod("b", says=health("loading"))), desired=3, enough=1)
    assert seen["Ready"] == (True, Reason.SERVING)
    assert seen["Progressing"] == (True, Reason.SCALING)


def test_one_of_two_pods_is_lost_and_the_other_serves() -> None:
    seen = told(observation(pod("a", says=health()), starting_pod("b", says=health("loading"))))
    assert seen["Ready"] == (False, Reason.LOADING)
    assert seen["Available"] == (True, Reason.SERVING)
    assert seen["ModelLoaded"] == (True, Reason.LOADED)


def test_a_pod_that_only_its_gate_keeps_out_of_traffic_leaves_the_service_ready() -> None:
    seen = observation(gated_pod("a", says=health(is_accepting=False)), pod("b", says=health()))
    assert told(seen)["Ready"] == (True, Reason.SERVING)
    assert told(seen)["Progressing"] == (True, Reason.ROLLED_OUT)
    assert message(seen, "Ready", desired=2) == "1 of 2 pods receive traffic, 1 kept out of it by closed gates"


@pytest.mark.parametrize("says", [None, health()])
def test_neither_silence_nor_the_kubelets_delay_at_coming_back_changes_that(says: Health | None) -> None:
    back = gated_pod("a", says=health(), gate_is_open=True, gate_reason="Relieved")
    for out in (gated_pod("a", says=says), back):
        assert told(observation(out, pod("b", says=health())))["Ready"] == (True, Reason.SERVING)


def test_a_pod_that_first_comes_up_counts_once_the_kubelet_says_so() -> None:
    first = gated_pod("a", says=health(), gate_is_open=True, gate_reason="Serving")
    assert told(observation(first, pod("b", says=health())))["Ready"][0] is False


@pytest.mark.parametrize("phase", ["loading", "failed"])
def test_a_gated_pod_whose_probes_fail_is_not_counted(phase: str) -> None:
    gated = gated_pod("a", says=health(phase), containers_ready=False)
    assert told(observation(gated, pod("b", says=health())))["Ready"][0] is False


def test_a_service_whose_pods_are_all_gated_is_not_ready() -> None:
    seen = told(observation(*[gated_pod(n, says=health()) for n in "ab"]))
    assert (seen["Ready"][0], seen["Available"][0]) == (False, False)


def test_a_rollout_is_available_and_progressing_but_not_ready() -> None:
    old = [pod(n, says=health(), template_hash="old") for n in "ab"]
    seen = told(observation(*old, starting_pod("c", says=health("loading"))), desired=2)
    assert seen["Ready"] == (False, Reason.ROLLING_OUT)
    assert seen["Available"] == (True, Reason.SERVING)
    assert seen["Progressing"] == (True, Reason.ROLLING_OUT)
    assert seen["ModelLoaded"] == (False, Reason.LOADING)


def test_a_new_version_that_fails_stops_the_rollout_with_its_reason() -> None:
    old = [pod(n, says=health(), template_hash="old") for n in "ab"]
    failed = starting_pod("c", says=health("failed", phase_reason="no weights"))
    seen = told(observation(*old, failed), desired=2)
    assert seen["Progressing"] == (False, Reason.MODEL_LOAD_FAILED)
    assert seen["Available"] == (True, Reason.SERVING)


def test_pods_that_are_not_created_are_told_from_the_deployment() -> None:
    stuck = rollout(1, trouble=Trouble(Reason.PODS_NOT_CREATED, "exceeded quota"))
    assert told(observation(rollout=stuck), desired=1)["Progressing"] == (False, Reason.PODS_NOT_CREATED)


@pytest.mark.parametrize("stale", [{"is_current": False}, {"template_hash": "old"}])
def test_what_a_deployment_says_of_an_earlier_spec_is_no_news(stale: dict[str, Any]) -> None:
    late = rollout(1, trouble=Trouble(Reason.PROGRESS_DEADLINE_EXCEEDED, "too long"), **stale)
    assert told(observation(rollout=late), desired=1)["Progressing"] == (True, Reason.NO_PODS)


def test_the_operators_own_trouble_comes_first() -> None:
    own = Trouble(Reason.NAME_CONFLICT, "Service minilm belongs to someone else")
    failed = starting_pod(says=health("failed"))
    assert told(observation(failed), blocked=own)["Ready"] == (False, Reason.NAME_CONFLICT)


def test_a_service_whose_address_is_not_its_own_is_not_ready_though_its_pods_are() -> None:
    own = Trouble(Reason.NAME_CONFLICT, "Service minilm belongs to someone else")
    seen = told(observation(pod(says=health())), blocked=own)
    assert seen["Ready"] == (False, Reason.NAME_CONFLICT)
    assert seen["Progressing"] == (False, Reason.NAME_CONFLICT)
    assert seen["Available"] == (True, Reason.SERVING)


def test_no_pods_are_asked_for() -> None:
    seen = told(observation(), desired=0)
    assert seen["Ready"] == (False, Reason.SCALED_TO_ZERO)
    assert seen["ModelLoaded"] == (None, Reason.SCALED_TO_ZERO)
    assert seen["Progressing"] == (True, Reason.ROLLED_OUT)


def test_no_pod_exists_yet() -> None:
    assert told(observation(rollout=None), desired=2)["Ready"] == (False, Reason.NO_PODS)


def test_pods_being_deleted_count_for_nothing() -> None:
    leaving = pod("old", says=health(), is_being_deleted=True)
    assert told(observation(leaving, starting_pod("new", says=health("loading"))))["Available"] == (
        False,
        Reason.LOADING,
    )


def test_a_service_that_cannot_be_asked_does_not_lose_its_model() -> None:
    assert told(observation(pod(says=None)))["ModelLoaded"] == (True, Reason.LOADED)


def test_the_time_of_a_transition_is_kept_until_the_status_changes() -> None:
    def dated(condition: Condition, before: list[dict[str, Any]], hours: int) -> list[dict[str, Any]]:
        return conditions.dated([condition], before, generation=3, now=WALL_TIME + timedelta(hours=hours))

    first = dated(Condition(ConditionType.READY, holds=False, reason=Reason.LOADING, message="1"), [], 0)
    second = dated(Condition(ConditionType.READY, holds=False, reason=Reason.WARMING, message="2"), first, 1)
    third = dated(Condition(ConditionType.READY, holds=True, reason=Reason.SERVING, message="3"), second, 2)
    times = [c["lastTransitionTime"] for (c,) in (first, second, third)]
    assert times == ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z", "2026-03-01T14:00:00Z"]
    assert [c["observedGeneration"] for c in third] == [3]


def test_nothing_is_known_of_the_model_before_there_is_a_pod() -> None:
    assert told(observation(), desired=1)["ModelLoaded"] == (None, Reason.NO_PODS)
    old = pod("a", template_hash="old", says=health())
    assert told(observation(old))["ModelLoaded"] == (None, Reason.NO_PODS)
    quota = Trouble(Reason.PODS_NOT_CREATED, "exceeded quota")
    refused = observation(rollout=rollout(0, requested_replicas=1, trouble=quota))
    assert told(refused, desired=1)["ModelLoaded"] == (None, Reason.PODS_NOT_CREATED)
    dated = conditions.dated(
        [Condition(ConditionType.MODEL_LOADED, None, Reason.NO_PODS, "m")], [], generation=1, now=WALL_TIME
    )
    assert dated[0]["status"] == "Unknown"


def test_pods_of_other_vectors_stop_the_rollout_and_leave_the_others_serving() -> None:
    strange = Trouble(Reason.FINGERPRINT_CHANGED, "other vectors")
    old, new = pod("a", template_hash="old", says=health()), starting_pod("b", says=health(), containers_ready=True)
    seen = told(observation(old, new, rollout=rollout(1)), desired=1, strange=strange)
    assert seen["Progressing"] == (False, Reason.FINGERPRINT_CHANGED)
    assert seen["Ready"] == (False, Reason.FINGERPRINT_CHANGED)
    assert seen["Available"] == (True, Reason.SERVING)


def test_what_cannot_be_had_beside_the_pods_leaves_the_service_ready() -> None:
    missing = Trouble(Reason.SERVICE_MONITOR_UNAVAILABLE, "no such API")
    seen = told(observation(pod("a", says=health())), shortfall=missing)
    assert seen["Ready"] == (True, Reason.SERVING)
    assert seen["Progressing"] == (False, Reason.SERVICE_MONITOR_UNAVAILABLE)
    worse = told(observation(starting_pod("a", says=health("failed"))), shortfall=missing)
    assert worse["Progressing"] == (False, Reason.MODEL_LOAD_FAILED)
