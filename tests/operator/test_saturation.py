"""When a service is saturated, and when it is no longer."""

from datetime import timedelta
from typing import Any

import pytest
from sluice_operator.conditions import Condition
from sluice_operator.pressure import Pressure, Thresholds, of_serving
from sluice_operator.reasons import Reason
from sluice_operator.saturation import Before, assess, budget

from tests.operator.builders import WALL_TIME, health, pod, service

LIMITS = Thresholds(close_above_milliseconds=1000, open_below_milliseconds=400)
LONG_AGO = WALL_TIME - timedelta(seconds=31)
JUST_NOW = WALL_TIME - timedelta(seconds=29)


def fleet(*drains: float, closed: int = 0) -> list[Pressure]:
    """Pods by drain time, those above the limit for long enough; so many of the first are closed."""
    pods = [
        pod(f"p{i}", says=health(drain_milliseconds=drain), gate_is_open=i >= closed) for i, drain in enumerate(drains)
    ]
    return of_serving(pods, {p.uid: 3 for p, drain in zip(pods, drains, strict=True) if drain > 1000}, LIMITS)


def said(
    pods: list[Pressure], before: Before | None = None, *, heard: int | None = None, silent: int = 0, **readiness: Any
) -> Condition:
    answered = len(pods) if heard is None else heard
    spec = service(readiness=readiness).spec.readiness
    return assess(pods, spec, before or Before(), heard=answered, asked=answered + silent, now=WALL_TIME)


@pytest.mark.parametrize(
    ("pods", "percent", "closed"),
    [(0, 50, 0), (1, 100, 0), (2, 50, 1), (2, 49, 0), (3, 50, 1), (4, 100, 3), (10, 34, 3)],
)
def test_how_many_may_be_closed(pods: int, percent: int, closed: int) -> None:
    assert budget(pods, service(readiness={"maxClosedPercent": percent}).spec.readiness) == closed


@pytest.mark.parametrize(
    ("pods_worth", "closed"), [(None, 7), (0.0, 7), (5.0, 7), (7.0, 5), (10.0, 2), (11.9, 0), (40.0, 0)]
)  # fmt: skip
def test_so_many_stay_open_that_they_can_compute_what_is_asked_for(pods_worth: float | None, closed: int) -> None:
    assert budget(14, service().spec.readiness, pods_worth) == closed


def test_overloaded_pods_that_the_others_cannot_stand_in_for_saturate_the_service() -> None:
    pods, spec = fleet(1500, 1500, 0, 0, 0, 0), service().spec.readiness
    for pods_worth, holds in ((3.0, False), (4.5, True)):
        seen = assess(pods, spec, Before(), heard=6, asked=6, now=WALL_TIME, pods_worth=pods_worth)
        assert seen.holds is holds


@pytest.mark.parametrize(
    ("drains", "closed", "holds"),
    [
        ((0,), 0, False),
        ((1500,), 0, True),
        ((1500, 0), 0, False),
        ((1500, 1500), 0, True),
        ((1500, 1500, 0), 0, True),
        ((1500, 1500, 0, 0), 0, False),
        ((700, 1500), 1, True),
        ((300, 1500), 1, False),
        ((700, 700), 0, False),
    ],
    ids=["one", "one-overloaded", "one-of-two", "both", "two-of-three", "half", "closed-and-not-relaxed",
         "closed-and-relaxed", "between-the-thresholds"],
)  # fmt: skip
def test_saturated_is_more_overloaded_pods_than_may_be_closed(
    drains: tuple[float, ...], closed: int, holds: bool
) -> None:
    assert said(fleet(*drains, closed=closed)).holds is holds


def test_the_message_has_the_numbers() -> None:
    assert said(fleet(1500, 2345)).message == (
        "2 of 2 serving pods are overloaded, at most 1 may be closed; no gate is closed, pods refuse what they "
        "cannot compute in time; the worst is p1: its queue needs 2345 ms"
    )
    assert said(fleet(1500, 10, 10)).message == "1 of 3 serving pods are overloaded, at most 1 may be closed"


@pytest.mark.parametrize(
    ("drains", "since", "holds"),
    [
        ((700, 700), LONG_AGO, True),
        ((700, 10), LONG_AGO, False),
        ((10, 10), LONG_AGO, False),
        ((10, 10), JUST_NOW, True),
        ((10, 10), None, False),
    ],
    ids=["still-tense", "few-tense", "relaxed", "too-soon", "since-unknown"],
)
def test_it_ends_below_the_lower_threshold_and_not_before_the_hold(
    drains: tuple[float, ...], since: Any, holds: bool
) -> None:
    assert said(fleet(*drains), Before(holds=True, since=since)).holds is holds


@pytest.mark.parametrize("was", [False, True])
def test_with_fewer_than_half_of_the_answers_nothing_new_is_concluded(was: bool) -> None:
    for drain in (10, 1500):
        told = said(fleet(drain), Before(holds=was, since=LONG_AGO), silent=2)
        assert (told.holds, told.reason) == (was, Reason.METRICS_STALE)
        assert "1 of 3 pods answered" in told.message


def test_where_no_pod_serves_none_is_overloaded() -> None:
    assert said([], heard=2).reason is Reason.NOT_SERVING
    assert said([], Before(holds=True, since=JUST_NOW), heard=2).holds


def test_what_was_said_last_is_read_from_the_status() -> None:
    condition = {"type": "Saturated", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"}
    assert Before.of({"conditions": [{"type": "Ready"}, condition]}) == Before(holds=True, since=WALL_TIME)
    assert Before.of({}) == Before()
