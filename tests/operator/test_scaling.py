"""How many pods, as timelines and as properties."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_operator import scaling
from sluice_operator.load import Load
from sluice_operator.reasons import Reason
from sluice_operator.scaling import Fleet, ScalingDecision, ScalingMemory
from sluice_operator.spec import ScalingSpec

from tests.operator.builders import load, service

C = 10_000.0
"""Tokens per second of one pod."""


def spec(**fields: Any) -> ScalingSpec:
    return service(scaling={"mode": "Internal", "minReplicas": 1, "maxReplicas": 20, **fields}).spec.scaling


def asked(pods_worth: float, **fields: Any) -> Load:
    """A load that asks for so many pods' work."""
    return load(offered_short=pods_worth * C, offered_long=pods_worth * C, capacity=C, **fields)


class Timeline:
    """A fleet that follows every decision at once, and the clock."""

    def __init__(self, replicas: int | None, **spec_fields: Any) -> None:
        self.spec = spec(**spec_fields)
        self.replicas = replicas
        self.now = 0.0
        self.memory = ScalingMemory()

    def expect(
        self,
        replicas: int,
        seen: Load,
        *,
        after: float = 2.0,
        settled: bool = True,
        pressed: bool = False,
        closed: int = 0,
    ) -> ScalingDecision:
        self.now += after
        ready = self.replicas or 0
        fleet = Fleet(self.replicas, ready, is_settled=settled, is_pressed=pressed, closed=closed)
        decision = scaling.decide(self.spec, fleet, seen, self.memory, self.now)
        assert decision.replicas == replicas, decision.message
        self.replicas, self.memory = decision.replicas, decision.memory
        return decision

    def keep(self, replicas: int, seen: Load, *, seconds: float, **how: Any) -> None:
        end = self.now + seconds
        while self.now < end:
            self.expect(replicas, seen, **how)


@pytest.mark.parametrize(
    ("pods_worth", "replicas"), [(0, 1), (0.2, 1), (1, 2), (2, 4), (4, 6), (9, 13), (14, 19), (100, 20)]
)  # fmt: skip
def test_the_target_leaves_room_in_every_pod_and_some_for_chance(pods_worth: float, replicas: int) -> None:
    Timeline(1).expect(replicas, asked(pods_worth))


def test_a_new_service_starts_with_the_fewest_pods() -> None:
    Timeline(None, minReplicas=3).expect(3, load(capacity=None, offered_short=None, offered_long=None))


def test_the_larger_window_decides_on_the_way_up() -> None:
    Timeline(1).expect(4, load(capacity=C, offered_short=2 * C, offered_long=0.5 * C))
    Timeline(1).expect(4, load(capacity=C, offered_short=None, offered_long=2 * C))


def rising(pods_worth: float, last: float, *, pods_queued: float) -> Load:
    """Both windows still say little, the last poll says more, and so many pod-seconds are queued."""
    return asked(pods_worth, offered_last=last * C, queued_tokens=int(pods_queued * C))


def test_the_last_poll_decides_when_queues_have_just_grown() -> None:
    Timeline(2).expect(11, rising(1, 8, pods_queued=1.2))


def test_the_last_poll_is_not_believed_while_queues_are_short() -> None:
    Timeline(2).expect(2, rising(1, 8, pods_queued=0.9))


def test_the_last_poll_is_not_asked_again_once_the_short_window_is_full() -> None:
    line = Timeline(12)
    line.keep(12, rising(8, 8, pods_queued=20), seconds=10, settled=False)
    line.expect(12, rising(8, 12, pods_queued=20), settled=False)
    line.expect(12, rising(8, 8, pods_queued=1))
    line.expect(16, rising(8, 12, pods_queued=20), settled=False)


def test_a_backlog_beyond_the_target_adds_pods() -> None:
    # 2 pods may hold 2 x 0.5 s; 31 s of work is 30 s too much, worked off in 10 s: 3 pods more.
    Timeline(2).expect(3, asked(0, queued_tokens=int(31 * C)))
    Timeline(2).expect(2, asked(0, queued_tokens=int(0.9 * C)))


def test_while_pods_warm_the_backlog_counts_for_nothing() -> None:
    Timeline(2).expect(2, asked(0, queued_tokens=int(100 * C)), settled=False)


def test_a_target_within_a_tenth_changes_nothing() -> None:
    line = Timeline(12)
    line.expect(12, asked(9.5))
    line.expect(14, asked(10.3))


def test_pods_go_only_when_none_were_needed_for_the_whole_window() -> None:
    line = Timeline(6, scaleDownStabilizationSeconds=300)
    line.keep(6, asked(0), seconds=298)
    line.expect(5, asked(0), after=4)


def test_a_peak_within_the_window_keeps_the_pods() -> None:
    line = Timeline(6, scaleDownStabilizationSeconds=300)
    line.keep(6, asked(0), seconds=200)
    line.expect(6, asked(4))
    line.keep(6, asked(0), seconds=296)
    line.expect(5, asked(0), after=8)


def test_pods_go_a_quarter_a_minute_and_one_at_least() -> None:
    line = Timeline(20, scaleDownStabilizationSeconds=0)
    line.expect(15, asked(0))
    line.keep(15, asked(0), seconds=58)
    line.expect(12, asked(0), after=2)
    Timeline(3, scaleDownStabilizationSeconds=0).expect(2, asked(0))


def test_nothing_goes_while_the_fleet_is_unsettled() -> None:
    line = Timeline(6, scaleDownStabilizationSeconds=0)
    line.keep(6, asked(0), seconds=120, settled=False)
    line.expect(5, asked(0))


def test_nothing_goes_while_the_service_is_saturated() -> None:
    line = Timeline(6, scaleDownStabilizationSeconds=0)
    line.keep(6, asked(0), seconds=120, pressed=True)
    line.keep(6, asked(0), seconds=58)
    line.expect(5, asked(0))


def test_what_was_asked_for_while_pods_refused_is_not_remembered() -> None:
    line = Timeline(4, scaleDownStabilizationSeconds=300)
    line.keep(4, asked(2), seconds=300)
    line.expect(16, asked(12), pressed=True)
    line.keep(16, asked(12), seconds=30, pressed=True, settled=False)
    line.keep(16, asked(6), seconds=58)
    line.expect(12, asked(6))
    line.keep(12, asked(6), seconds=58)
    line.expect(9, asked(6))


def test_pods_behind_closed_gates_are_none_that_could_be_spared() -> None:
    line = Timeline(6, scaleDownStabilizationSeconds=0)
    line.keep(6, asked(2.4), seconds=120, closed=2)
    line.expect(5, asked(2.4), closed=1)
    line.keep(5, asked(2.4), seconds=120, closed=1)


def test_a_saturated_service_grows_and_its_backlog_counts() -> None:
    Timeline(2).expect(3, asked(0, queued_tokens=int(31 * C)), pressed=True)
    Timeline(1).expect(4, asked(2), pressed=True)


def test_after_a_panic_nothing_goes_for_a_minute() -> None:
    line = Timeline(2, scaleDownStabilizationSeconds=0)
    line.expect(6, asked(4))
    line.keep(6, asked(0), seconds=56)
    line.expect(5, asked(0), after=6)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (load(fresh_pods=1, asked_pods=3), Reason.METRICS_STALE),
        (load(fresh_pods=0, asked_pods=1, capacity=None), Reason.METRICS_STALE),
        (load(capacity=None), Reason.CAPACITY_UNKNOWN),
        (load(offered_short=None, offered_long=None), Reason.CAPACITY_UNKNOWN),
    ],
)
def test_what_is_not_known_changes_nothing(seen: Load, reason: Reason) -> None:
    decision = Timeline(7, scaleDownStabilizationSeconds=0).expect(7, seen)
    assert (decision.is_active, decision.reason) == (False, reason)
    assert "held" in decision.message


def test_a_changed_bound_holds_at_once_also_without_measurements() -> None:
    blind = load(capacity=None)
    Timeline(7, maxReplicas=5).expect(5, blind)
    Timeline(7, minReplicas=9).expect(9, blind)


def test_a_decision_says_why() -> None:
    decision = Timeline(1).expect(4, asked(2, queued_tokens=5000))
    assert decision.message == "offered 20k tok/s at 10k tok/s per pod, 0.5 pod-seconds queued"


loads = st.builds(
    Load,
    offered_short=st.none() | st.floats(0, 1e7),
    offered_long=st.none() | st.floats(0, 1e7),
    capacity=st.none() | st.floats(1, 1e6),
    queued_tokens=st.integers(0, 10**9),
    fresh_pods=st.integers(0, 50),
    asked_pods=st.integers(0, 50),
)


@given(
    steps=st.lists(st.tuples(loads, st.booleans(), st.booleans(), st.floats(0.5, 120)), min_size=1, max_size=40),
    start=st.integers(1, 20),
    least=st.integers(1, 5),
    most=st.integers(5, 20),
)
def test_the_number_stays_within_its_bounds_and_falls_slowly(
    steps: list[tuple[Load, bool, bool, float]], start: int, least: int, most: int
) -> None:
    wanted = spec(minReplicas=least, maxReplicas=most, scaleDownStabilizationSeconds=30)
    memory, replicas, now = ScalingMemory(), min(max(start, least), most), 0.0
    for seen, settled, pressed, pause in steps:
        now += pause
        fleet = Fleet(replicas, replicas, is_settled=settled, is_pressed=pressed)
        decision = scaling.decide(wanted, fleet, seen, memory, now)
        assert least <= decision.replicas <= most
        assert decision.replicas >= replicas - max(1, math.floor(replicas * 0.25))
        if decision.replicas < replicas:
            assert settled
            assert not pressed
            assert decision.is_active
        replicas, memory = decision.replicas, decision.memory


@given(seen=loads, start=st.integers(1, 20))
def test_the_memory_stays_small(seen: Load, start: int) -> None:
    wanted, memory = spec(scaleDownStabilizationSeconds=86_400), ScalingMemory()
    for step in range(60):
        memory = scaling.decide(wanted, Fleet(start, start, is_settled=True), seen, memory, 2.0 * step).memory
    assert len(memory.highest) <= 1


def test_an_advice_goes_on_from_the_one_before_though_nobody_follows() -> None:
    calm, memory = load(offered_short=600.0, offered_long=600.0), ScalingMemory(advised=6)
    fleet = Fleet(requested=2, ready=2, is_settled=True)
    rules = spec(maxReplicas=10, scaleDownStabilizationSeconds=0)
    advised = []
    for minute in range(3):
        advice = scaling.advise(rules, fleet, calm, memory, 60.0 * minute)
        memory = advice.memory
        advised.append(advice.replicas)
    assert advised == [5, 4, 3]
    assert memory.advised == 3


def test_the_first_advice_begins_with_what_there_is() -> None:
    idle = load(offered_short=0.0, offered_long=0.0)
    advice = scaling.advise(spec(maxReplicas=10), Fleet(2, 2, is_settled=True), idle, ScalingMemory(), 0.0)
    assert (advice.replicas, advice.memory.advised) == (2, 2)
