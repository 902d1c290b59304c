"""How hard pods are pressed, as timelines of polls."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_operator.pressure import Pressure, PressureWindow, Thresholds, of_serving
from sluice_operator.values import Pod, Report

from tests.operator.builders import health, pod, service

LIMITS = Thresholds(close_above_milliseconds=1000, open_below_milliseconds=400)


def polled(at: float, **says: Any) -> Pod:
    """One pod and what it said at a time."""
    return replace(pod("a"), report=Report(health(**says), received_at=at))


def polls_over(timeline: list[Pod]) -> list[int | None]:
    window = PressureWindow()
    return [window.observe([seen], LIMITS).get(seen.uid) for seen in timeline]


def pressure(**says: Any) -> Pressure:
    return Pressure(pod("a"), health(**says), polls_over=0, limits=LIMITS)


def test_the_thresholds_are_percentages_of_the_target_drain_time() -> None:
    wanted = service(scaling={"mode": "Off", "targetDrainMilliseconds": 300}, readiness={"closeAbovePercent": 250})
    assert Thresholds.of(wanted.spec) == Thresholds(close_above_milliseconds=750, open_below_milliseconds=240)


@pytest.mark.parametrize(
    ("timeline", "counted"),
    [
        ([polled(t, drain_milliseconds=1001.0) for t in range(4)], [1, 2, 3, 4]),
        ([polled(t, is_accepting=False) for t in range(3)], [1, 2, 3]),
        ([polled(0, drain_milliseconds=2000.0), polled(1, is_accepting=False)], [1, 2]),
        ([polled(t, drain_milliseconds=d) for t, d in enumerate([1500.0, 1000.0, 1500.0])], [1, 0, 1]),
        ([polled(0, drain_milliseconds=1500.0)] * 3, [1, 1, 1]),
        ([polled(t, is_accepting=False, boot_id=b) for t, b in enumerate("112")], [1, 2, 1]),
        ([polled(0, is_accepting=False), pod("a"), polled(2, is_accepting=False)], [1, None, 1]),
        ([polled(0, is_accepting=False), polled(1, phase="draining"), polled(2, is_accepting=False)], [1, None, 1]),
        ([polled(t, drain_milliseconds=None, queued_tokens=9) for t in range(3)], [0, 0, 0]),
    ],
    ids=[
        "long",
        "refuses",
        "either",
        "interrupted",
        "same-answer",
        "restarted",
        "silent",
        "stopped-serving",
        "unknown",
    ],
)
def test_polls_in_a_row_over_the_limit(timeline: list[Pod], counted: list[int | None]) -> None:
    assert polls_over(timeline) == counted


def test_pods_are_counted_each_on_its_own() -> None:
    window = PressureWindow()
    for at in range(3):
        both = [polled(at, drain_milliseconds=5000.0), replace(polled(at), name="b", uid="uid-b")]
        last = window.observe(both, LIMITS)
    assert last == {"uid-a": 3, "uid-b": 0}


@pytest.mark.parametrize(
    ("says", "is_relaxed"),
    [
        ({"drain_milliseconds": 399.0}, True),
        ({"drain_milliseconds": 400.0}, False),
        ({"drain_milliseconds": 0.0, "is_accepting": False}, False),
        ({"drain_milliseconds": None, "queued_tokens": 0}, True),
        ({"drain_milliseconds": None, "queued_tokens": 1}, False),
    ],
)
def test_a_pod_is_relaxed_when_it_is_known_to_have_a_short_queue(says: dict[str, Any], is_relaxed: bool) -> None:
    assert pressure(**says).is_relaxed is is_relaxed


def test_two_polls_make_an_overload() -> None:
    assert [replace(pressure(), polls_over=n).is_overloaded for n in range(4)] == [False, False, True, True]


def test_what_a_pod_says_in_words() -> None:
    assert pressure(drain_milliseconds=1234.4).in_words == "its queue needs 1234 ms"
    refusing = pressure(drain_milliseconds=None, queued_tokens=5, is_accepting=False)
    assert refusing.in_words == "it refuses work, its drain time is unknown"


@given(st.permutations(range(5)))
def test_the_order_is_from_the_least_pressed_to_the_worst_however_pods_are_listed(order: list[int]) -> None:
    said = [{"drain_milliseconds": 5.0}, {"drain_milliseconds": 5.0}, {"drain_milliseconds": 900.0},
            {"drain_milliseconds": None, "queued_tokens": 4}, {"drain_milliseconds": 1.0, "is_accepting": False}]  # fmt: skip
    pods = [pod(str(i), says=health(**says)) for i, says in enumerate(said)]
    fleet = of_serving([pods[i] for i in order], {}, LIMITS)
    assert [p.pod.name for p in fleet] == ["0", "1", "2", "3", "4"]


def test_pods_that_do_not_serve_or_are_silent_are_not_among_them() -> None:
    assert of_serving([pod("a"), pod("b", says=health("draining")), pod("c", says=health("loading"))], {}, LIMITS) == []
