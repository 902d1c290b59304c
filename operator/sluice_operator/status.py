"""The status of an EmbeddingService, when it is written, and the events that tell its story. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sluice_operator import manifests
from sluice_operator.reasons import PROBLEMS, ConditionType, EventReason, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sluice_operator.load import Load
    from sluice_operator.spec import EmbeddingService
    from sluice_operator.values import Health, Observation

Json = dict[str, Any]

WORDING_INTERVAL_SECONDS = 10.0
"""What changes all the time, load and the wording of messages, is written at most this often."""


_AS_ASKED = {Reason.ROLLING_OUT, Reason.SCALED_TO_ZERO}
"""Reasons for not being ready that someone asked for."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of `kubectl describe`: a transition, in plain words."""

    reason: EventReason
    note: str
    is_warning: bool = False


def build(
    service: EmbeddingService, observation: Observation, load: Load, desired: int, conditions: list[Json]
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
    model = _model(healths) or observation.status.get("model")
    if model:
        status["model"] = model
    if "scaling" in observation.status:
        status["scaling"] = observation.status["scaling"]
    return status


def scaling_record(before: int | None, after: int, reason: str, at: datetime) -> Json:
    """The last change of the number of pods, for status.scaling."""
    return {"last": {"from": before, "to": after, "reason": reason, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}}


def worth_writing(before: Json, after: Json, seconds_since_last: float) -> bool:
    """Whether the status should be written: at once for what matters, seldom for what only drifts."""
    if before == after:
        return False
    return _essence(before) != _essence(after) or seconds_since_last >= WORDING_INTERVAL_SECONDS


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
    return {**status, "load": None, "conditions": conditions}


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


def _model(healths: list[Health]) -> Json:
    loaded = next((h for h in healths if h.phase == "serving"), None)
    if loaded is None:
        return {}
    said = {
        "dimension": loaded.dimension,
        "revision": loaded.model_revision,
        "fingerprint": loaded.model_fingerprint,
    }
    return {name: value for name, value in said.items() if value is not None}
