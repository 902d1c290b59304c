"""Whether a service is saturated: more pods overloaded than may be taken out of traffic. Pure.

Closing gates moves load to pods that have room. Where too few have, it would only press the rest harder: then
every gate opens, pods refuse what they cannot compute in time, and the number of pods grows. It ends once few
enough pods are above openBelowPercent, and not before minHoldSeconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sluice_operator.conditions import Condition
from sluice_operator.reasons import ConditionType, Reason
from sluice_operator.scaling import POD_LOAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sluice_operator.pressure import Pressure
    from sluice_operator.spec import ReadinessSpec


@dataclass(frozen=True, slots=True)
class Before:
    """The condition as it was last written; it outlives a restart of the operator."""

    holds: bool = False
    since: datetime | None = None

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Before:
        """Out of a service's status."""
        kind = ConditionType.SATURATED
        condition = next((c for c in status.get("conditions", []) if c["type"] == kind), None)
        if condition is None:
            return cls()
        return cls(condition["status"] == "True", datetime.fromisoformat(condition["lastTransitionTime"]))


def budget(pods: int, spec: ReadinessSpec, pods_worth: float | None = None) -> int:
    """How many of so many serving pods may be closed at most; one always stays open.

    So many stay open that they can compute what clients ask for: with fewer, closed pods would drain while open ones
    overload, and all would take turns in it.

    Args:
        pods: that serve.
        spec: the largest share.
        pods_worth: what clients ask for, in pods; None while unknown.
    """
    spare = pods if pods_worth is None else math.floor(pods - pods_worth / POD_LOAD)
    return max(0, min(pods - 1, pods * spec.max_closed_percent // 100, spare))


def assess(
    fleet: Sequence[Pressure],
    spec: ReadinessSpec,
    before: Before,
    *,
    heard: int,
    asked: int,
    now: datetime,
    pods_worth: float | None = None,
) -> Condition:
    """The condition Saturated.

    Args:
        fleet: the serving pods, the least pressed first.
        spec: the thresholds.
        before: what was said last.
        heard: pods that answered lately.
        asked: pods that should have.
        now: wall time.
        pods_worth: what clients ask for, in pods; None while unknown.
    """
    if heard * 2 < asked:
        return _said(before.holds, Reason.METRICS_STALE, f"as before: only {heard} of {asked} pods answered")
    is_held = before.since is not None and now - before.since < timedelta(seconds=spec.min_hold_seconds)
    if not fleet:
        still = before.holds and is_held
        return _said(still, Reason.SATURATED if still else Reason.NOT_SERVING, "no pod serves")
    allowed = budget(len(fleet), spec, pods_worth)
    limits = fleet[-1].limits
    overloaded = sum(p.is_overloaded or _is_out(p) for p in fleet)
    if overloaded > allowed:
        return _said(True, Reason.SATURATED, f"{_share(overloaded, len(fleet), allowed)}; {_worst(fleet)}")
    tense = sum(not p.is_relaxed for p in fleet)
    if before.holds and (is_held or tense > allowed):
        words = f"{tense} of {len(fleet)} pods are not yet below {limits.open_below_milliseconds:.0f} ms"
        return _said(True, Reason.SATURATED, f"{words}, at most {allowed} may be closed; {_worst(fleet)}")
    return _said(False, Reason.KEEPING_UP, _share(overloaded, len(fleet), allowed))


def _is_out(pressure: Pressure) -> bool:
    """Closed, and not yet relaxed enough to come back."""
    return pressure.pod.has_gate and pressure.pod.gate_is_open is False and not pressure.is_relaxed


def _share(overloaded: int, pods: int, allowed: int) -> str:
    return f"{overloaded} of {pods} serving pods are overloaded, at most {allowed} may be closed"


def _worst(fleet: Sequence[Pressure]) -> str:
    worst = fleet[-1]
    return (
        "no gate is closed, pods refuse what they cannot compute in time; "
        f"the worst is {worst.pod.name}: {worst.in_words}"
    )


def _said(holds: bool, reason: Reason, message: str) -> Condition:
    return Condition(ConditionType.SATURATED, holds=holds, reason=reason, message=message)
