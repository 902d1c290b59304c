"""How many pods: an absolute target from offered load and measured capacity. Pure; the time is a parameter.

    R = offered / c                                  pods' worth of work that clients ask for
    N = ceil( R + sqrt(R) + max(0, backlog / c - N_now * target) / recovery )

c is what one pod computes per second, backlog what is queued at all pods, target the time in which a queue
should drain. sqrt(R) is square-root headroom, enough spare servers for random arrivals; the last term works
off what has piled up. A ratio times the current count, as HPA computes it, would cascade while new pods warm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
DOWN_SHARE = 0.1
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
    """A gate is closed or the service is saturated: nothing is taken away."""


@dataclass(frozen=True, slots=True)
class ScalingMemory:
    """What one decision hands to the next."""

    since: float | None = None
    """When targets were first computed: before a whole stabilization window, nothing is taken away."""
    highest: tuple[tuple[float, int], ...] = ()
    """Targets of the stabilization window that no later one has exceeded: (time, pods), falling."""
    panic_until: float = -math.inf
    last_down_at: float = -math.inf


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
    offered = max((o for o in (load.offered_short, load.offered_long) if o is not None), default=None)
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


def target(spec: ScalingSpec, load: Load, offered: float, capacity: float, current: int, *, is_settled: bool) -> float:
    """The real-valued number of pods that the load asks for; while pods warm, the backlog counts nothing."""
    rate = offered / capacity
    allowed = current * spec.target_drain_milliseconds / 1000
    excess = max(0.0, load.queued_tokens / capacity - allowed) if is_settled else 0.0
    return rate + math.sqrt(rate) + excess / RECOVERY_SECONDS


def _why_hold(load: Load) -> tuple[Reason, str] | None:
    if load.asked_pods and load.fresh_pods * 2 < load.asked_pods:
        return Reason.METRICS_STALE, f"only {load.fresh_pods} of {load.asked_pods} pods answered"
    if load.capacity is None:
        return Reason.CAPACITY_UNKNOWN, "no pod has computed anything yet"
    return None


def _remember(memory: ScalingMemory, spec: ScalingSpec, wanted: float, fleet: Fleet, now: float) -> ScalingMemory:
    pods = math.ceil(wanted)
    start = now - spec.scale_down_stabilization_seconds
    kept = tuple((at, n) for at, n in memory.highest if at > start and n > pods)
    panics = pods >= PANIC_FACTOR * max(1, fleet.ready) and pods > 1
    return replace(
        memory,
        since=now if memory.since is None else memory.since,
        highest=(*kept, (now, pods)),
        panic_until=now + PANIC_SECONDS if panics else memory.panic_until,
    )


def _next(spec: ScalingSpec, fleet: Fleet, memory: ScalingMemory, wanted: float, current: int, now: float) -> int:
    if wanted > current * (1 + TOLERANCE):
        return max(current, _clamp(spec, math.ceil(wanted)))
    lowest = max((pods for _, pods in memory.highest), default=current)
    has_seen_enough = memory.since is not None and now - memory.since >= spec.scale_down_stabilization_seconds
    may_go_down = fleet.is_settled and not fleet.is_pressed and has_seen_enough and now >= memory.panic_until
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
