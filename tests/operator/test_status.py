"""What is written, when, and which events go with it."""

from dataclasses import replace
from typing import Any

import pytest
from sluice_operator import status
from sluice_operator.load import Capacity
from sluice_operator.reasons import EventReason, Reason
from sluice_operator.scaling import ScalingDecision, ScalingMemory

from tests.operator.builders import health, load, observation, pod, service, starting_pod


def condition(kind: str, state: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": state, "reason": reason, "message": message}


def with_conditions(ready: tuple[str, str], progressing: tuple[str, str], message: str = "m") -> dict[str, Any]:
    return {
        "conditions": [condition("Ready", *ready, message), condition("Progressing", *progressing, message)],
        "load": {"drainMilliseconds": 400, "queuedTokens": 48_000, "serviceRate": 120_000, "offeredRate": 60_000},
    }


SERVING = with_conditions(("True", "Serving"), ("True", "RolledOut"))
LOADING = with_conditions(("False", "Loading"), ("True", "Loading"))
FAILED = with_conditions(("False", "ModelLoadFailed"), ("False", "ModelLoadFailed"))
ROLLING = with_conditions(("False", "RollingOut"), ("True", "RollingOut"))


def test_the_status_sums_up_the_pods() -> None:
    seen = observation(
        pod("a", says=health(queued_tokens=1234, drain_milliseconds=512.3, service_rate=11_900.0)),
        pod("b", says=health(queued_tokens=1000, drain_milliseconds=90.0, service_rate=12_345.0)),
        starting_pod("c"),
        pod("d", says=health(queued_tokens=9999), is_being_deleted=True),
    )
    built = status.build(service(), seen, load(offered_short=8765.0), 3, [], model={"dimension": 384}, advice=None)
    assert built["model"] == {"dimension": 384}
    assert built["load"] == {
        "drainMilliseconds": 510, "queuedTokens": 2200, "serviceRate": 24_000, "offeredRate": 8800,
    }  # fmt: skip
    assert (built["replicas"], built["readyReplicas"], built["desiredReplicas"]) == (3, 2, 3)
    assert built["gates"] == {"open": 2, "closed": 1}
    assert built["endpoint"] == "minilm.shop.svc:50051"


def test_what_is_unknown_is_left_out() -> None:
    seen = observation(starting_pod())
    built = status.build(service(), seen, load(offered_short=None), 1, [], model={}, advice=None)
    assert "scaling" not in built
    assert "load" not in built
    assert "model" not in built


def test_the_last_change_is_kept_and_an_advice_is_not() -> None:
    before = {"scaling": {"last": {"to": 2}, "recommendedReplicas": 3, "recommendation": "busy"}}
    seen = replace(observation(starting_pod()), status=before)
    assert status.advised(before) == 3
    assert status.build(service(), seen, load(), 1, [], model={}, advice=None)["scaling"] == {"last": {"to": 2}}
    advice = ScalingDecision(5, Reason.MEASURED, "offered much", is_active=True, memory=ScalingMemory())
    advised = status.build(service(), seen, load(), 1, [], model={}, advice=advice)["scaling"]
    assert advised == {"last": {"to": 2}, "recommendedReplicas": 5, "recommendation": "offered much"}


def test_the_measured_capacity_is_written_and_read_back() -> None:
    measured = load(measured=Capacity(12_345.0, "v1"))
    built = status.build(service(), observation(starting_pod()), measured, 1, [], model={}, advice=None)
    assert built["scaling"] == {"tokensPerSecondPerPod": 12_000, "measuredOn": "v1"}
    assert status.capacity(built) == Capacity(12_000.0, "v1")
    assert status.capacity({}) is None


def loaded(**measured: int) -> dict[str, Any]:
    """The same service under another load."""
    return SERVING | {"load": SERVING["load"] | measured}


def scaled(message: str, capacity: int) -> dict[str, Any]:
    """The same service with other words for how many pods there are."""
    conditions = [*SERVING["conditions"], condition("ScalingActive", "True", "Measured", message)]
    return SERVING | {"conditions": conditions, "scaling": {"tokensPerSecondPerPod": capacity}}


@pytest.mark.parametrize(
    ("before", "after", "seconds", "is_written"),
    [
        (SERVING, SERVING, 1e9, False),
        ({}, LOADING, 0, True),
        (LOADING, SERVING, 0, True),
        (SERVING, loaded(offeredRate=90_000), 1, False),
        (SERVING, loaded(offeredRate=90_000), 11, True),
        (SERVING, loaded(offeredRate=64_000, drainMilliseconds=420, queuedTokens=50_000), 11, False),
        (loaded(drainMilliseconds=5), loaded(drainMilliseconds=50), 11, False),
        (loaded(drainMilliseconds=5), loaded(drainMilliseconds=60), 11, True),
        (loaded(queuedTokens=0), loaded(queuedTokens=5_900), 11, False),
        (loaded(queuedTokens=0), loaded(queuedTokens=6_100), 11, True),
        (SERVING, {k: v for k, v in SERVING.items() if k != "load"}, 11, True),
        (scaled("60k tok/s", 12_000), scaled("61k tok/s", 12_100), 11, False),
        (scaled("60k tok/s", 12_000), scaled("60k tok/s", 15_000), 11, True),
        (LOADING, with_conditions(("False", "Loading"), ("True", "Loading"), "other words"), 1, False),
        (LOADING, with_conditions(("False", "Loading"), ("True", "Loading"), "other words"), 11, True),
        (SERVING, SERVING | {"readyReplicas": 1}, 0, True),
    ],
    ids=[
        "same", "first", "transition", "load-soon", "load-late", "noise", "short-queue", "longer-queue", "few-tokens",
        "more-tokens", "load-unknown", "words-about-noise", "capacity", "words-soon", "words-late", "count",
    ],
)  # fmt: skip
def test_when_the_status_is_written(before: Any, after: Any, seconds: float, is_written: bool) -> None:
    assert status.worth_writing(before, after, seconds) is is_written


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, LOADING, []),
        ({}, SERVING, [(EventReason.BECAME_READY, False)]),
        (LOADING, SERVING, [(EventReason.BECAME_READY, False)]),
        (SERVING, SERVING, []),
        (SERVING, LOADING, [(EventReason.NO_LONGER_READY, True)]),
        (SERVING, ROLLING, [(EventReason.NO_LONGER_READY, False)]),
        (LOADING, FAILED, [(EventReason.PROBLEM, True)]),
        (FAILED, FAILED, []),
        (SERVING, FAILED, [(EventReason.NO_LONGER_READY, True), (EventReason.PROBLEM, True)]),
    ],
)
def test_one_event_per_change_of_readiness(before: Any, after: Any, told: list[tuple[EventReason, bool]]) -> None:
    assert [(e.reason, e.is_warning) for e in status.events(before, after)] == told


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, "False", []),
        (None, "True", [(EventReason.SATURATED, True, "m")]),
        ("False", "True", [(EventReason.SATURATED, True, "m")]),
        ("True", "True", []),
        ("True", "False", [(EventReason.NO_LONGER_SATURATED, False, "m")]),
    ],
)
def test_one_event_per_change_of_saturation(before: str | None, after: str, told: Any) -> None:
    def saturated(state: str | None) -> dict[str, Any]:
        more = [] if state is None else [condition("Saturated", state, "r", "m")]
        return {"conditions": SERVING["conditions"] + more}

    events = status.events(saturated(before), saturated(after))
    assert [(e.reason, e.is_warning, e.note) for e in events] == told
