"""The status of an EmbeddingService, when it is written, and the events that tell its story. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sluice_operator import manifests
from sluice_operator.load import Capacity, Load
from sluice_operator.reasons import PROBLEMS, ConditionType, EventReason, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sluice_operator.scaling import ScalingDecision
    from sluice_operator.spec import EmbeddingService
    from sluice_operator.values import Health, Observation

Json = dict[str, Any]

WORDING_INTERVAL_SECONDS = 10.0
"""What changes all the time, load and the wording of messages, is written at most this often."""
NOTICEABLE_SHARE = 0.15
NOTICEABLE_DRAIN_MILLISECONDS = 50.0
"""Load that differs by less is noise: steady traffic causes no writes, and its exact numbers are metrics.

A poll that was a second late moves the rate over ten seconds by a tenth.
"""
_FOLLOWS_LOAD = {"tokensPerSecondPerPod", "recommendation"}
_AS_ASKED = {Reason.ROLLING_OUT, Reason.SCALED_TO_ZERO}
"""Reasons for not being ready that someone asked for."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of `kubectl describe`: a transition, in plain words."""

    reason: EventReason
    note: str
    is_warning: bool = False


def build(
    service: EmbeddingService,
    observation: Observation,
    load: Load,
    desired: int,
    conditions: list[Json],
    *,
    model: Json,
    advice: ScalingDecision | None,
) -> Json:
    """The status as it is now; what is unknown is left out."""
    live = observation.live_pods
    gated = [p for p in live if p.has_gate]
    is_open = sum(bool(p.gate_is_open) for p in gated)
    status: Json = {
        "observedGeneration": service.generation,
        "conditions": conditions,
        "replicas": len(live),
        "readyReplicas": sum(p.is_ready for p in live),
        "desiredReplicas": desired,
        "selector": manifests.selector(service.name),
        "gates": {"open": is_open, "closed": len(gated) - is_open},
        "endpoint": manifests.endpoint(service),
    }
    healths = [p.report.health for p in live if p.report is not None]
    measured = _load(healths, load)
    if measured:
        status["load"] = measured
    if model:
        status["model"] = model
    known = _scaling(observation.status.get("scaling", {}), load, advice)
    if known:
        status["scaling"] = known
    return status


def capacity(status: Json) -> Capacity | None:
    """What one pod computes, as an operator before this one measured it."""
    known = status.get("scaling", {})
    rate = known.get("tokensPerSecondPerPod")
    return None if rate is None else Capacity(float(rate), known.get("measuredOn"))


def advised(status: Json) -> int | None:
    """The number of pods that was advised last, and not followed."""
    known: int | None = status.get("scaling", {}).get("recommendedReplicas")
    return known


def _scaling(before: Json, load: Load, advice: ScalingDecision | None) -> Json:
    measured = load.measured
    known = {
        "last": before.get("last"),
        "tokensPerSecondPerPod": None if measured is None else _rounded(measured.tokens_per_second),
        "measuredOn": None if measured is None else measured.template_hash,
        "recommendedReplicas": None if advice is None else advice.replicas,
        "recommendation": None if advice is None else advice.message,
    }
    return {name: value for name, value in known.items() if value is not None}


def scaling_record(before: int | None, after: int, reason: str, at: datetime) -> Json:
    """The last change of the number of pods, for status.scaling."""
    return {"last": {"from": before, "to": after, "reason": reason, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}}


def worth_writing(before: Json, after: Json, seconds_since_last: float) -> bool:
    """Whether the status should be written: at once for what matters, seldom for what only drifts."""
    if before == after:
        return False
    if _essence(before) != _essence(after):
        return True
    has_moved = _without_noise(before) != _without_noise(after) or _load_moved(before, after)
    return has_moved and seconds_since_last >= WORDING_INTERVAL_SECONDS


def events(before: Json, after: Json) -> list[Event]:
    """One event per transition between two statuses."""
    was, now = _by_type(before.get("conditions", [])), _by_type(after["conditions"])
    told: list[Event] = []
    ready = now[ConditionType.READY]
    if ready["status"] == "True" and was.get(ConditionType.READY, {}).get("status") != "True":
        told.append(Event(EventReason.BECAME_READY, ready["message"]))
    if ready["status"] != "True" and was.get(ConditionType.READY, {}).get("status") == "True":
        told.append(
            Event(
                EventReason.NO_LONGER_READY,
                f"{ready['reason']}: {ready['message']}",
                is_warning=ready["reason"] not in _AS_ASKED,
            )
        )
    progress = now[ConditionType.PROGRESSING]
    if progress["reason"] in PROBLEMS and was.get(ConditionType.PROGRESSING, {}).get("reason") != progress["reason"]:
        told.append(Event(EventReason.PROBLEM, f"{progress['reason']}: {progress['message']}", is_warning=True))
    return told + _saturation(was.get(ConditionType.SATURATED, {}), now.get(ConditionType.SATURATED, {}))


def _saturation(was: Json, now: Json) -> list[Event]:
    before, after = was.get("status", "False"), now.get("status", "False")
    if before == after:
        return []
    if after == "True":
        return [Event(EventReason.SATURATED, now["message"], is_warning=True)]
    return [Event(EventReason.NO_LONGER_SATURATED, now.get("message", ""))]


def _essence(status: Json) -> Json:
    """The status without load and wording."""
    conditions = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", [])]
    scaling = {k: v for k, v in status.get("scaling", {}).items() if k in {"last", "recommendedReplicas"}}
    return {**status, "load": None, "conditions": conditions, "scaling": scaling}


def _without_noise(status: Json) -> Json:
    """The status without what follows the load from poll to poll."""
    conditions = [
        {**c, "message": ""} if c["type"] == ConditionType.SCALING_ACTIVE else c for c in status.get("conditions", [])
    ]
    scaling = {k: v for k, v in status.get("scaling", {}).items() if k not in _FOLLOWS_LOAD}
    return {**status, "load": None, "conditions": conditions, "scaling": scaling}


def _load_moved(before: Json, after: Json) -> bool:
    """Whether a measurement came, went, or differs from what is written by more than noise."""
    was, now = ({**s.get("load", {}), "c": s.get("scaling", {}).get("tokensPerSecondPerPod")} for s in (before, after))
    floors = {
        "drainMilliseconds": NOTICEABLE_DRAIN_MILLISECONDS,
        "queuedTokens": now.get("serviceRate", 0) * NOTICEABLE_DRAIN_MILLISECONDS / 1000,
    }
    return any(_differ(was.get(name), now.get(name), floors.get(name, 0.0)) for name in was.keys() | now.keys())


def _differ(before: float | None, after: float | None, floor: float) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(after - before) > max(floor, NOTICEABLE_SHARE * max(before, after))


def _by_type(conditions: Iterable[Json]) -> dict[str, Json]:
    return {c["type"]: c for c in conditions}


def _load(healths: list[Health], load: Load) -> Json:
    drains = [h.drain_milliseconds for h in healths if h.drain_milliseconds is not None]
    rates = [h.service_rate for h in healths if h.service_rate is not None]
    measured = {
        "drainMilliseconds": max(drains) if drains else None,
        "queuedTokens": sum(h.queued_tokens for h in healths) if healths else None,
        "serviceRate": sum(rates) if rates else None,
        "offeredRate": load.offered_short,
    }
    return {name: _rounded(value) for name, value in measured.items() if value is not None}


def _rounded(value: float) -> int:
    """Two significant digits: a person reads no more, and noise causes no writes."""
    return round(float(f"{value:.2g}"))
