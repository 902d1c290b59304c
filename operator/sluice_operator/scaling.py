"""How many pods: an absolute target from offered load and measured capacity. Pure; the time is a parameter.

    R = offered / c                                  pods' worth of work that clients ask for
    N = ceil( R / 0.85 + sqrt(R) / 2 + max(0, backlog / c - N_now * target) / recovery )

c is what one pod computes per second, backlog what is queued at all pods, target the time in which a queue
should drain. Clients spread requests blindly and pods do not share a queue, so each pod needs room of its own,
however many there are; sqrt(R) is room for chance in the whole, which small fleets need more of. The last term
works off what has piled up. A ratio times the current count, as HPA computes it, would cascade while new pods
warm. The constants are those that simulation/ found best over all its scenarios.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sluice_operator.load import LONG_WINDOW_SECONDS, SHORT_WINDOW_SECONDS
from sluice_operator.reasons import Reason

if TYPE_CHECKING:
    from sluice_operator.load import Load
    from sluice_operator.spec import ScalingSpec

TOLERANCE = 0.1
"""A target within this share of the current number changes nothing."""
PANIC_FACTOR = 2
PANIC_SECONDS = 60.0
"""After a target of twice the ready pods, nothing is taken away for so long."""
RECOVERY_SECONDS = 10.0
"""Time in which what has piled up beyond the target should be worked off."""
POD_LOAD = 0.85
"""Share of its capacity that a pod is loaded to at most."""
CHANCE_PODS = 0.5
"""Pods for chance, times the square root of the load in pods."""
DOWN_SHARE = 0.25
"""At most this share of the pods, but one at least, is taken away per interval."""
DOWN_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """The pods as they are now."""

    requested: int | None
    """What the Deployment asks for; None where there is none yet."""
    ready: int
    is_settled: bool
    """No pod warms and no rollout runs: only then does the backlog count, and are pods taken away."""
    is_pressed: bool = False
    """The service is saturated: nothing is taken away."""
    closed: int = 0
    """Pods that a closed gate keeps out of traffic: what is left must do without them."""


@dataclass(frozen=True, slots=True)
class ScalingMemory:
    """What one decision hands to the next."""

    since: float | None = None
    """When targets were first computed: before a whole stabilization window, nothing is taken away."""
    highest: tuple[tuple[float, int], ...] = ()
    """Targets of the stabilization window that no later one has exceeded: (time, pods), falling."""
    unsure_until: float = -math.inf
    """Until then targets may count refused work several times: they add pods, and are not remembered."""
    panic_until: float = -math.inf
    last_down_at: float = -math.inf
    queues_since: float | None = None
    """Since when the pods' queues need longer than the target, on average; None while they do not."""
    advised: int | None = None
    """The last advice, where it is given and not followed: the next one goes on from it."""


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """The number of pods to ask for, and why."""

    replicas: int
    reason: Reason
    message: str
    is_active: bool
    """Whether the number follows from measurements."""
    memory: ScalingMemory


def decide(spec: ScalingSpec, fleet: Fleet, load: Load, memory: ScalingMemory, now: float) -> ScalingDecision:
    """The number of pods for scaling.mode Internal; held, with the reason, where measurements are missing."""
    current = _clamp(spec, spec.min_replicas if fleet.requested is None else fleet.requested)
    hold = _why_hold(load)
    memory = replace(memory, queues_since=_queues_since(spec, fleet, load, memory, now))
    offered = _offered(load, memory, now)
    if hold is not None or offered is None or not load.capacity:
        reason, message = hold or (Reason.CAPACITY_UNKNOWN, "pods have not been measured for long enough")
        return ScalingDecision(current, reason, f"held, as {message}", is_active=False, memory=memory)
    wanted = target(spec, load, offered, load.capacity, current, is_settled=fleet.is_settled)
    memory = _remember(memory, spec, wanted, fleet, now)
    replicas = _next(spec, fleet, memory, wanted, current, now)
    if replicas < current:
        memory = replace(memory, last_down_at=now)
    message = _explanation(load, offered, load.capacity)
    return ScalingDecision(replicas, Reason.MEASURED, message, is_active=True, memory=memory)


def advise(spec: ScalingSpec, fleet: Fleet, load: Load, memory: ScalingMemory, now: float) -> ScalingDecision:
    """What `decide` would do, had every advice before been followed; for modes External and Observe."""
    as_advised = fleet if memory.advised is None else replace(fleet, requested=memory.advised)
    advice = decide(spec, as_advised, load, memory, now)
    return replace(advice, memory=replace(advice.memory, advised=advice.replicas))


def target(spec: ScalingSpec, load: Load, offered: float, capacity: float, current: int, *, is_settled: bool) -> float:
    """The real-valued number of pods that the load asks for; while pods warm, the backlog counts nothing."""
    rate = offered / capacity
    allowed = current * spec.target_drain_milliseconds / 1000
    excess = max(0.0, load.queued_tokens / capacity - allowed) if is_settled else 0.0
    return rate / POD_LOAD + CHANCE_PODS * math.sqrt(rate) + excess / RECOVERY_SECONDS


def _queues_since(spec: ScalingSpec, fleet: Fleet, load: Load, memory: ScalingMemory, now: float) -> float | None:
    allowed = max(1, fleet.ready) * spec.target_drain_milliseconds / 1000
    if not load.capacity or load.queued_tokens / load.capacity <= allowed:
        return None
    return now if memory.queues_since is None else memory.queues_since


def _offered(load: Load, memory: ScalingMemory, now: float) -> float | None:
    """Tokens per second by the larger window; when queues have just grown, by the last poll too.

    Until the short window is full of what made the queues grow, it tells less than there is. Afterwards the last
    poll's noise would tell more, the more often it is asked.
    """
    windows = [load.offered_short, load.offered_long]
    if memory.queues_since is not None and now - memory.queues_since < SHORT_WINDOW_SECONDS:
        windows.append(load.offered_last)
    return max((offered for offered in windows if offered is not None), default=None)


def _why_hold(load: Load) -> tuple[Reason, str] | None:
    if load.asked_pods and load.fresh_pods * 2 < load.asked_pods:
        return Reason.METRICS_STALE, f"only {load.fresh_pods} of {load.asked_pods} pods answered"
    if load.capacity is None:
        return Reason.CAPACITY_UNKNOWN, "no pod has computed anything yet"
    return None


def _remember(memory: ScalingMemory, spec: ScalingSpec, wanted: float, fleet: Fleet, now: float) -> ScalingMemory:
    pods = math.ceil(wanted)
    start = now - spec.scale_down_stabilization_seconds
    unsure_until = now + LONG_WINDOW_SECONDS if fleet.is_pressed else memory.unsure_until
    is_sure = now >= unsure_until
    kept = tuple((at, n) for at, n in memory.highest if at > start and (n > pods or not is_sure))
    panics = pods >= PANIC_FACTOR * max(1, fleet.ready) and pods > 1
    return replace(
        memory,
        since=now if memory.since is None else memory.since,
        highest=(*kept, (now, pods)) if is_sure else kept,
        unsure_until=unsure_until,
        panic_until=now + PANIC_SECONDS if panics else memory.panic_until,
    )


def _next(spec: ScalingSpec, fleet: Fleet, memory: ScalingMemory, wanted: float, current: int, now: float) -> int:
    if wanted > current * (1 + TOLERANCE):
        return max(current, _clamp(spec, math.ceil(wanted)))
    lowest = max((pods for _, pods in memory.highest), default=current) + fleet.closed
    has_seen_enough = memory.since is not None and now - memory.since >= spec.scale_down_stabilization_seconds
    is_calm = now >= memory.unsure_until and now >= memory.panic_until
    may_go_down = fleet.is_settled and not fleet.is_pressed and has_seen_enough and is_calm
    if not may_go_down or now - memory.last_down_at < DOWN_INTERVAL_SECONDS or lowest > current * (1 - TOLERANCE):
        return current
    step = max(1, math.floor(current * DOWN_SHARE))
    return _clamp(spec, max(lowest, current - step))


def _clamp(spec: ScalingSpec, replicas: int) -> int:
    return min(max(replicas, spec.min_replicas), spec.max_replicas)


def _explanation(load: Load, offered: float, capacity: float) -> str:
    return (
        f"offered {_short(offered)} tok/s at {_short(capacity)} tok/s per pod, "
        f"{load.queued_tokens / capacity:.1f} pod-seconds queued"
    )


def _short(value: float) -> str:
    return f"{value / 1000:.0f}k" if value >= 1e4 else f"{value:.0f}"  # noqa: PLR2004 - 9999 stays 9999
