"""Readiness gates: which pods may receive traffic. Pure; the time is a parameter.

Startup: a gate opens once its pod serves, which means that a real forward pass has run, and accepts requests.
It never closes again: a later fault of one pod is told by its readiness probe, and load is shed by the
servers.

Dynamic: opens as Startup does, and takes overloaded pods out of traffic for a while. The first row that holds
decides about a serving pod that has answered lately; any other pod keeps its gate as it is.

    the service is saturated                                               open   Saturated
    closed, never opened yet, and accepts work                             open   Serving
    closed for minHoldSeconds, and below openBelowPercent                  open   Relieved
    closed, and more are closed than may be; the least pressed first       open   TooManyClosed
    open for minHoldSeconds, overloaded, and one more may be closed;
      the worst first; no rollout runs, half of the pods answered          close  Overloaded

Off: pods are made without the gate; those that still have one are opened at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sluice_operator.reasons import EventReason, GateReason, Reason
from sluice_operator.saturation import budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sluice_operator.conditions import Condition
    from sluice_operator.pressure import Pressure
    from sluice_operator.spec import ReadinessSpec
    from sluice_operator.values import Pod


@dataclass(frozen=True, slots=True)
class GateChange:
    """One transition of one pod's gate; the reason and message become the pod condition's."""

    pod_name: str
    pod_uid: str
    opens: bool
    reason: GateReason
    message: str
    event: EventReason | None = None
    """The event that tells it; a pod that comes up is told by the service's conditions."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the gates depend on beside the pods themselves."""

    saturation: Condition
    is_rolling: bool
    """Pods of one spec replace those of another."""
    now: datetime
    pods_worth: float | None = None
    """What clients ask for, in pods; None while unknown."""


def gate_changes(
    spec: ReadinessSpec, pods: Sequence[Pod], fleet: Sequence[Pressure], moment: Moment
) -> list[GateChange]:
    """The transitions to write now; pods whose gate is as it should be are left out.

    Args:
        spec: mode and thresholds.
        pods: all pods of the service.
        fleet: those that serve and have answered lately, the least pressed first.
        moment: the rest.
    """
    if spec.mode == "Off":
        return [_open(p, GateReason.GATES_OFF, "readiness.mode is Off") for p in _closed(pods)]
    if spec.mode == "Startup":
        return [_begin(p) for p in _closed(pods) if p.is_serving and p.accepts]
    silent = sum(p.report is None and p.gate_is_open is False for p in _closed(pods))
    return _dynamic(spec, fleet, silent, moment)


def open_all(pods: Iterable[Pod]) -> list[GateChange]:
    """For a service that is gone: nobody would open these gates any more."""
    return [_open(p, GateReason.SERVICE_DELETED, "the EmbeddingService was deleted") for p in _closed(pods)]


def _dynamic(spec: ReadinessSpec, fleet: Sequence[Pressure], silent: int, moment: Moment) -> list[GateChange]:
    closed = [p for p in fleet if p.pod.has_gate and not p.pod.gate_is_open]
    if moment.saturation.holds:
        return [_told(p.pod, GateReason.SATURATED, moment.saturation.message) for p in closed]
    # Pods that are closed and silent use up the share too, but cannot be what the last open one is.
    allowed = max(0, min(len(fleet) - 1, budget(len(fleet) + silent, spec, moment.pods_worth) - silent))
    changes = [c for p in closed if (c := _relief(p, spec, moment.now)) is not None]
    opened = {c.pod_uid for c in changes}
    left = [p for p in closed if p.pod.uid not in opened]
    excess = max(0, len(left) - allowed)
    words = f"{len(left)} of {len(fleet)} serving pods are closed, at most {allowed} may be"
    changes += [_told(p.pod, GateReason.TOO_MANY_CLOSED, f"{words}; {p.in_words}") for p in left[:excess]]
    if moment.is_rolling or moment.saturation.reason is Reason.METRICS_STALE:
        return changes
    overloaded = [p for p in reversed(fleet) if _may_close(p, spec, moment.now)]
    return changes + [_close(p, len(left) + n, len(fleet)) for n, p in enumerate(overloaded[: allowed - len(left)], 1)]


def _relief(pressure: Pressure, spec: ReadinessSpec, now: datetime) -> GateChange | None:
    pod = pressure.pod
    if pod.gate_is_open is None:
        return _begin(pod) if pod.accepts else None
    if not pressure.is_relaxed or not _is_held(pod, spec, now):
        return None
    limit = pressure.limits.open_below_milliseconds
    return _told(pod, GateReason.RELIEVED, f"{pressure.in_words}, below {limit:.0f} ms")


def _may_close(pressure: Pressure, spec: ReadinessSpec, now: datetime) -> bool:
    pod = pressure.pod
    return pod.has_gate and bool(pod.gate_is_open) and pressure.is_overloaded and _is_held(pod, spec, now)


def _is_held(pod: Pod, spec: ReadinessSpec, now: datetime) -> bool:
    """Whether the gate has been as it is for the minimum hold; since always, where nobody says since when."""
    return pod.gate_since is None or now - pod.gate_since >= timedelta(seconds=spec.min_hold_seconds)


def _closed(pods: Iterable[Pod]) -> list[Pod]:
    return [p for p in pods if p.has_gate and not p.gate_is_open and not p.is_being_deleted]


def _begin(pod: Pod) -> GateChange:
    message = "the model has computed and requests are accepted"
    if pod.gate_is_open is None:
        return _open(pod, GateReason.SERVING, message)
    return _told(pod, GateReason.RELIEVED, message)


def _open(pod: Pod, reason: GateReason, message: str) -> GateChange:
    return GateChange(pod.name, pod.uid, opens=True, reason=reason, message=message)


def _told(pod: Pod, reason: GateReason, message: str) -> GateChange:
    return GateChange(pod.name, pod.uid, opens=True, reason=reason, message=message, event=EventReason.GATE_OPENED)


def _close(pressure: Pressure, closed: int, pods: int) -> GateChange:
    limit = pressure.limits.close_above_milliseconds
    message = (
        f"{pressure.in_words}; {pressure.polls_over} polls in a row above {limit:.0f} ms or refusing; "
        f"{closed} of {pods} serving pods {'is' if closed == 1 else 'are'} closed now"
    )
    pod, event = pressure.pod, EventReason.GATE_CLOSED
    return GateChange(pod.name, pod.uid, opens=False, reason=GateReason.OVERLOADED, message=message, event=event)
