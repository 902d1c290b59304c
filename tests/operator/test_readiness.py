"""Which gates open and close, and when."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_operator import readiness, saturation
from sluice_operator.pressure import PressureWindow, Thresholds, of_serving
from sluice_operator.readiness import GateChange, Moment
from sluice_operator.reasons import EventReason, GateReason
from sluice_operator.spec import ReadinessSpec
from sluice_operator.values import Health, Pod, Report

from tests.operator.builders import WALL_TIME, health, pod, service, starting_pod

PHASES = ["starting", "downloading", "loading", "warming", "serving", "draining", "failed"]
LIMITS = Thresholds(close_above_milliseconds=1000, open_below_milliseconds=400)
CALM, TENSE, HOT = 100.0, 700.0, 1500.0
"""Drain times below, between and above the thresholds."""


def spec(mode: str = "Dynamic", **fields: Any) -> ReadinessSpec:
    return service(readiness={"mode": mode, **fields}).spec.readiness


def changes(
    pods: list[Pod],
    *,
    mode: str = "Dynamic",
    polls_over: dict[str, int] | None = None,
    is_rolling: bool = False,
    before: saturation.Before | None = None,
    now: Any = WALL_TIME,
    pods_worth: float | None = None,
    **fields: Any,
) -> list[GateChange]:
    wanted = spec(mode, **fields)
    fleet = of_serving([p for p in pods if not p.is_being_deleted], polls_over or {}, LIMITS)
    heard = sum(p.report is not None for p in pods)
    said = saturation.assess(
        fleet, wanted, before or saturation.Before(), heard=heard, asked=len(pods), now=now, pods_worth=pods_worth
    )  # fmt: skip
    return readiness.gate_changes(
        wanted, pods, fleet, Moment(said, is_rolling=is_rolling, now=now, pods_worth=pods_worth)
    )


def in_short(made: list[GateChange]) -> list[tuple[str, bool, str]]:
    return sorted((change.pod_name, change.opens, str(change.reason)) for change in made)


# --- Startup and Off


@pytest.mark.parametrize("mode", ["Startup", "Dynamic"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_gate_first_opens_once_its_pod_serves(mode: str, phase: str) -> None:
    opened = in_short(changes([starting_pod(says=health(phase))], mode=mode))
    assert opened == ([("minilm-a", True, "Serving")] if phase == "serving" else [])


def test_at_startup_a_pod_that_serves_but_refuses_is_not_opened_yet() -> None:
    assert changes([starting_pod(says=health(is_accepting=False))], mode="Startup") == []


@pytest.mark.parametrize("mode", ["Startup", "Dynamic"])
def test_a_silent_pod_keeps_its_gate_as_it_is(mode: str) -> None:
    for is_open in (None, False, True):
        assert changes([pod("b", says=health()), starting_pod(says=None, gate_is_open=is_open)], mode=mode) == []


def test_a_gate_left_closed_by_another_mode_opens_at_startup() -> None:
    assert in_short(changes([pod(says=health(), gate_is_open=False)], mode="Startup")) == [
        ("minilm-a", True, "Relieved")
    ]


def test_without_gates_those_that_are_left_are_opened_at_once() -> None:
    made = changes([starting_pod(says=None), starting_pod("b", has_gate=False)], mode="Off")
    assert in_short(made) == [("minilm-a", True, "GatesOff")]


def test_the_gates_of_a_deleted_service_open() -> None:
    pods = [pod("a"), pod("b", gate_is_open=False), starting_pod("c"), pod("d", gate_is_open=False, is_being_deleted=True)]  # fmt: skip
    assert in_short(readiness.open_all(pods)) == [("b", True, "ServiceDeleted"), ("c", True, "ServiceDeleted")]


@given(
    mode=st.sampled_from(["Startup", "Off"]),
    phase=st.sampled_from(PHASES),
    has_gate=st.booleans(),
    is_open=st.sampled_from([None, False, True]),
    is_being_deleted=st.booleans(),
    speaks=st.booleans(),
)
def test_only_transitions_are_written_and_only_dynamic_ever_closes(
    mode: str, phase: str, has_gate: bool, is_open: bool | None, is_being_deleted: bool, speaks: bool
) -> None:
    seen = starting_pod(
        says=health(phase) if speaks else None,
        has_gate=has_gate,
        gate_is_open=is_open,
        is_being_deleted=is_being_deleted,
    )
    made = changes([seen], mode=mode, polls_over={seen.uid: 9})
    assert all(change.opens for change in made)
    if not has_gate or is_open or is_being_deleted:
        assert made == []


# --- Dynamic, as a table


def serving(name: str, drain: float = CALM, *, is_open: bool | None = True, held: float = 60, **says: Any) -> Pod:
    """A serving pod with so long a queue, whose gate has been as it is for so many seconds."""
    since = WALL_TIME - timedelta(seconds=held)
    return pod(name, says=health(drain_milliseconds=drain, **says), gate_is_open=is_open, gate_since=since)


def closed(name: str, drain: float = CALM, **how: Any) -> Pod:
    return serving(name, drain, is_open=False, **how)


def overloaded(*names: str, polls: int = 3) -> dict[str, int]:
    return {f"uid-{name}": polls for name in names}


TABLE: dict[str, tuple[list[Pod], dict[str, Any], list[tuple[str, bool, str]]]] = {
    "all is calm": ([serving("a"), serving("b")], {}, []),
    "overloaded": ([serving("a", HOT), serving("b")], {"polls_over": overloaded("a")}, [("a", False, "Overloaded")]),
    "the others could not stand in for it": (
        [serving("a", HOT), serving("b")], {"polls_over": overloaded("a"), "pods_worth": 1.0}, [],
    ),
    "the others can stand in for it": (
        [serving("a", HOT), serving("b")], {"polls_over": overloaded("a"), "pods_worth": 0.8}, [("a", False, "Overloaded")],
    ),
    "work has grown since it was closed": (
        [closed("a", held=5), serving("b"), serving("c")], {"pods_worth": 1.9}, [("a", True, "TooManyClosed")],
    ),
    "not for long enough": ([serving("a", HOT), serving("b")], {"polls_over": overloaded("a", polls=1)}, []),
    "opened just now": ([serving("a", HOT, held=29), serving("b")], {"polls_over": overloaded("a")}, []),
    "nobody says since when": ([replace(serving("a", HOT), gate_since=None), serving("b")], {"polls_over": overloaded("a")}, [("a", False, "Overloaded")]),
    "a rollout runs": ([serving("a", HOT), serving("b")], {"polls_over": overloaded("a"), "is_rolling": True}, []),
    "most are silent": ([serving("a", HOT), serving("b"), pod("c"), pod("d"), pod("e")], {"polls_over": overloaded("a")}, []),
    "a pod without a gate": ([replace(serving("a", HOT), has_gate=False), serving("b")], {"polls_over": overloaded("a")}, []),
    "between the thresholds": ([closed("a", TENSE), serving("b")], {}, []),
    "relieved": ([closed("a"), serving("b")], {}, [("a", True, "Relieved")]),
    "relieved during a rollout": ([closed("a"), serving("b")], {"is_rolling": True}, [("a", True, "Relieved")]),
    "closed just now": ([closed("a", held=29), serving("b")], {}, []),
    "closed and refusing": ([closed("a", is_accepting=False), serving("b")], {}, []),
    "closed, its queue unknown": ([replace(closed("a"), report=Report(health(drain_milliseconds=None, queued_tokens=5), 0.0)), serving("b")], {}, []),
    "the worst goes first": (
        [closed("x", held=5), serving("a", HOT), serving("b", 2 * HOT), serving("c")],
        {"polls_over": overloaded("a", "b")}, [("b", False, "Overloaded")],
    ),
    "one that refuses is worse than any queue": (
        [closed("x", held=5), serving("a", 9 * HOT), serving("b", CALM, is_accepting=False), serving("c")],
        {"polls_over": overloaded("a", "b")}, [("b", False, "Overloaded")],
    ),
    "one place is left": (
        [closed("x", TENSE), serving("a", HOT), serving("b", HOT + 1), serving("c", CALM, held=5), serving("d")],
        {"polls_over": overloaded("a")}, [("a", False, "Overloaded")],
    ),
    "saturated": (
        [closed("a", TENSE, held=5), serving("b", HOT)], {"polls_over": overloaded("b")}, [("a", True, "Saturated")],
    ),
    "saturated by the only pod": ([serving("a", HOT)], {"polls_over": overloaded("a")}, []),
    "saturated until lately": (
        [closed("a", TENSE), serving("b", TENSE)],
        {"before": saturation.Before(holds=True, since=WALL_TIME - timedelta(seconds=60))}, [("a", True, "Saturated")],
    ),
    "the open one falls silent": ([closed("a", held=5), pod("b")], {}, [("a", True, "TooManyClosed")]),
    "fewer may be closed than before": (
        [closed("a", CALM, held=5), closed("b", CALM + 1, held=5), serving("c"), serving("d")],
        {"maxClosedPercent": 25}, [("a", True, "TooManyClosed")],
    ),
    "a closed and silent pod takes a place": (
        [pod("x", gate_is_open=False), serving("a", HOT), serving("b"), serving("c")], {"polls_over": overloaded("a"), "maxClosedPercent": 34}, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_dynamic(case: str) -> None:
    pods, how, expected = TABLE[case]
    assert in_short(changes(pods, **how)) == expected


def test_a_change_says_why_with_its_numbers_and_which_event_tells_it() -> None:
    pods = [serving("a", 1234.0), closed("b", 123.0), serving("c"), serving("d")]
    opened, shut = changes(pods, polls_over=overloaded("a", polls=4))
    assert (opened.message, opened.event) == ("its queue needs 123 ms, below 400 ms", EventReason.GATE_OPENED)
    assert shut.event is EventReason.GATE_CLOSED
    assert shut.message == (
        "its queue needs 1234 ms; 4 polls in a row above 1000 ms or refusing; 1 of 4 serving pods is closed now"
    )
    assert changes([starting_pod(says=health())])[0].event is None


# --- Dynamic, as a timeline and as properties


@dataclass
class Fleet:
    """Pods whose gates follow every decision at once, and the clock; a poll every two seconds."""

    spec: ReadinessSpec
    gates: dict[str, tuple[bool | None, Any]]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.window = PressureWindow()
        self.before = saturation.Before()

    def poll(self, said: dict[str, Health | None], order: list[str] | None = None) -> list[GateChange]:
        self.seconds += 2
        now = WALL_TIME + timedelta(seconds=self.seconds)
        pods = [
            replace(pod(name), gate_is_open=self.gates[name][0], gate_since=self.gates[name][1],
                    report=None if said[name] is None else Report(said[name], self.seconds))
            for name in (order or list(said))
        ]  # fmt: skip
        polls_over = self.window.observe(pods, LIMITS)
        self.fleet = of_serving(pods, polls_over, LIMITS)
        heard = sum(p.report is not None for p in pods)
        self.said = saturation.assess(self.fleet, self.spec, self.before, heard=heard, asked=len(pods), now=now)
        if self.said.holds != self.before.holds or self.before.since is None:
            self.before = saturation.Before(self.said.holds, now)
        made = readiness.gate_changes(self.spec, pods, self.fleet, Moment(self.said, is_rolling=False, now=now))
        for change in made:
            self.gates[change.pod_name] = (change.opens, now)
        return made

    def closed_among_serving(self) -> int:
        return sum(not self.gates[p.pod.name][0] for p in self.fleet)


def test_a_hot_pod_is_relieved_and_comes_back() -> None:
    fleet = Fleet(spec(), {"a": (True, None), "b": (True, None)})
    hot, calm = health(drain_milliseconds=HOT), health(drain_milliseconds=CALM)
    story = [(seconds, in_short(fleet.poll({"a": hot if seconds < 10 else calm, "b": calm}))) for seconds in range(0, 80, 2)]  # fmt: skip
    assert [(seconds, made) for seconds, made in story if made] == [
        (2, [("a", False, "Overloaded")]),
        (32, [("a", True, "Relieved")]),
    ]


def test_saturation_opens_what_was_closed_and_ends_late() -> None:
    fleet = Fleet(spec(), {"a": (True, None), "b": (True, None)})
    hot, tense, calm = (health(drain_milliseconds=d) for d in (HOT, TENSE, CALM))
    story = []
    for seconds in range(0, 100, 2):
        a = hot if seconds < 40 else calm
        b = calm if seconds < 8 else hot if seconds < 40 else tense if seconds < 60 else calm
        made = in_short(fleet.poll({"a": a, "b": b}))
        story.append((seconds, made, fleet.said.holds))
    assert [(seconds, made) for seconds, made, _ in story if made] == [
        (2, [("a", False, "Overloaded")]),
        (10, [("a", True, "Saturated")]),
    ]
    assert [s for s, _, holds in story if holds] == list(range(10, 40, 2))


_ANSWERS = st.one_of(
    st.none(),
    st.builds(
        lambda drain, accepts, phase: health(phase, drain_milliseconds=drain, is_accepting=accepts, queued_tokens=7),
        st.sampled_from([None, CALM, TENSE, HOT, 2 * HOT]),
        st.booleans(),
        st.sampled_from(["serving", "serving", "serving", "serving", "loading", "draining"]),
    ),
)


@st.composite
def _timelines(draw: st.DrawFn) -> tuple[ReadinessSpec, list[dict[str, Health | None]]]:
    names = [f"p{i}" for i in range(draw(st.integers(1, 6)))]
    answers = {name: draw(st.lists(st.tuples(_ANSWERS, st.integers(1, 6)), min_size=1, max_size=4)) for name in names}
    timeline = {name: [said for said, times in answers[name] for _ in range(times)] for name in names}
    steps = max(map(len, timeline.values()))
    polls = [{name: said[min(step, len(said) - 1)] for name, said in timeline.items()} for step in range(steps)]
    wanted = spec(maxClosedPercent=draw(st.integers(1, 100)), minHoldSeconds=draw(st.sampled_from([1, 6, 30])))
    return wanted, polls


@given(_timelines(), st.booleans())
def test_never_more_are_closed_than_may_be_and_never_the_last_open_one(
    timeline: tuple[ReadinessSpec, list[dict[str, Health | None]]], begin_open: bool
) -> None:
    wanted, polls = timeline
    fleet = Fleet(wanted, dict.fromkeys(polls[0], (begin_open, None)))
    for said in polls:
        before = {name: is_open for name, (is_open, _) in fleet.gates.items()}
        made = fleet.poll(said)
        serving_pods = len(fleet.fleet)
        assert fleet.closed_among_serving() <= saturation.budget(serving_pods, wanted)
        assert not serving_pods or fleet.closed_among_serving() < serving_pods
        assert all(before[change.pod_name] is not change.opens for change in made), "only transitions"
        served = {p.pod.name for p in fleet.fleet}
        assert {change.pod_name for change in made} <= served, "who is silent or does not serve keeps its gate"
        if fleet.said.holds:
            assert fleet.closed_among_serving() == 0, "saturation opens all"


@given(_timelines())
def test_no_gate_changes_twice_within_the_hold_unless_it_has_to_open(
    timeline: tuple[ReadinessSpec, list[dict[str, Health | None]]],
) -> None:
    wanted, polls = timeline
    fleet = Fleet(wanted, dict.fromkeys(polls[0], (True, None)))
    changed_at: dict[str, float] = {}
    for said in polls:
        for change in fleet.poll(said):
            if change.reason not in {GateReason.SATURATED, GateReason.TOO_MANY_CLOSED}:
                assert fleet.seconds - changed_at.get(change.pod_name, -1e9) >= wanted.min_hold_seconds
            changed_at[change.pod_name] = fleet.seconds


@given(_timelines(), st.randoms(use_true_random=False))
def test_the_order_in_which_pods_are_listed_changes_nothing(
    timeline: tuple[ReadinessSpec, list[dict[str, Health | None]]], random: Any
) -> None:
    wanted, polls = timeline
    listed, shuffled = (Fleet(wanted, dict.fromkeys(polls[0], (True, None))) for _ in range(2))
    for said in polls:
        order = list(said)
        random.shuffle(order)
        assert sorted(listed.poll(said), key=str) == sorted(shuffled.poll(said, order), key=str)
        assert listed.said == shuffled.said
