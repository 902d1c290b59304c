"""The decision about one service: values in, a plan with reasons out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sluice_operator import (
    conditions,
    drift,
    manifests,
    pod_template,
    pressure,
    readiness,
    saturation,
    scaling,
    status,
)
from sluice_operator.conditions import Condition
from sluice_operator.reasons import ConditionType, EventReason, Reason
from sluice_operator.scaling import Fleet, ScalingDecision, ScalingMemory
from sluice_operator.status import Event
from sluice_operator.values import Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sluice_operator.drift import Applied, Apply, ChildKey
    from sluice_operator.load import Load
    from sluice_operator.pressure import Pressure
    from sluice_operator.readiness import GateChange
    from sluice_operator.spec import EmbeddingService
    from sluice_operator.values import Child, Observation

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision hands to the next, and what happened since."""

    scaling: ScalingMemory = field(default_factory=ScalingMemory)
    seconds_since_status: float = float("inf")
    may_apply: bool = True
    """False for a while after the API server refused what this very spec leads to."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in the order of doing it."""

    gates: list[GateChange]
    apply: list[Apply]
    delete: list[Child]
    status: Json | None
    """None where the status is as it should be."""
    events: list[Event]
    scaling: ScalingMemory


def decide(
    service: EmbeddingService,
    observation: Observation,
    *,
    load: Load,
    polls_over: Mapping[str, int],
    children: Mapping[ChildKey, Child],
    applied: Mapping[ChildKey, Applied],
    memory: Memory,
    default_image: str | None,
) -> Plan:
    """The plan for one service at one moment; `polls_over` as `pressure.PressureWindow` counts them."""
    image = service.spec.server.image or default_image
    before = _requested(observation)
    fleet = pressure.of_serving(observation.live_pods, polls_over, pressure.Thresholds.of(service.spec))
    saturated = _saturated(service, observation, fleet)
    count = _replicas(service, observation, load, memory.scaling, saturated)
    wanted = [] if image is None else manifests.children(service, image=image, replicas=count.replicas)
    apply = drift.to_apply(wanted, children, applied) if memory.may_apply else []
    blocked = _own_trouble(observation, wanted, children)
    new_status = _status(service, observation, load, count, saturated, blocked, wanted)
    told = [*_changes(apply, children), *status.events(observation.status, new_status)]
    if before not in {None, count.replicas} and any(a.key[0] == "Deployment" for a in apply):
        new_status["scaling"] = status.scaling_record(before, count.replicas, count.message, observation.wall_time)
        told.append(Event(EventReason.SCALED, f"{before} → {count.replicas} pods: {count.message}"))
    is_news = status.worth_writing(observation.status, new_status, memory.seconds_since_status)
    return Plan(
        gates=readiness.gate_changes(
            service.spec.readiness,
            observation.pods,
            fleet,
            readiness.Moment(saturated, is_rolling=_is_rolling(observation, apply), now=observation.wall_time),
        ),
        apply=apply,
        delete=_superfluous(wanted, children) if image is not None else [],
        status=new_status if is_news else None,
        events=told if is_news or apply else [],
        scaling=count.memory,
    )


def _requested(observation: Observation) -> int | None:
    return None if observation.rollout is None else observation.rollout.requested_replicas


def _saturated(service: EmbeddingService, observation: Observation, fleet: list[Pressure]) -> Condition:
    asked = [p for p in observation.live_pods if p.is_running]
    return saturation.assess(
        fleet,
        service.spec.readiness,
        saturation.Before.of(observation.status),
        heard=sum(p.report is not None for p in asked),
        asked=len(asked),
        now=observation.wall_time,
    )


def _is_rolling(observation: Observation, apply: list[Apply]) -> bool:
    """Whether pods of one spec replace those of another, are about to, or nobody can tell."""
    rollout = observation.rollout
    if any(a.key[0] == "Deployment" for a in apply):
        return True
    return rollout is None or not rollout.is_current or rollout.updated_replicas != rollout.replicas


def _replicas(
    service: EmbeddingService, observation: Observation, load: Load, memory: ScalingMemory, saturated: Condition
) -> ScalingDecision:
    spec = service.spec
    fixed = spec.fixed_replicas
    if fixed is not None and spec.scaling.mode == "External":
        message = "an autoscaler decides through the scale subresource"
        return ScalingDecision(fixed, Reason.EXTERNAL_AUTOSCALER, message, is_active=True, memory=memory)
    if fixed is not None:
        message = "scaling.mode is Off"
        return ScalingDecision(fixed, Reason.FIXED, message, is_active=False, memory=memory)
    live = observation.live_pods
    rollout = observation.rollout
    fleet = Fleet(
        requested=_requested(observation),
        ready=sum(p.is_ready or p.is_gated for p in live),
        is_settled=rollout is not None
        and rollout.is_current
        and rollout.updated_replicas == rollout.replicas == rollout.requested_replicas == len(live)
        and all(p.is_ready or p.is_gated for p in live),
        is_pressed=saturated.holds or any(p.has_gate and p.gate_is_open is False for p in live),
    )
    return scaling.decide(spec.scaling, fleet, load, memory, observation.now)


def _own_trouble(observation: Observation, wanted: list[Json], children: Mapping[ChildKey, Child]) -> Trouble | None:
    """What keeps the operator itself from making the service what it should be."""
    if not wanted:
        return Trouble(
            Reason.NO_SERVER_IMAGE,
            "no image: set spec.server.image, or install the operator with serverImage",
        )
    for manifest in wanted:
        child = children.get(drift.key_of(manifest))
        if child is not None and not child.is_ours:
            return Trouble(
                Reason.NAME_CONFLICT,
                f"{child.kind} {child.name} belongs to {child.owner}: "
                "rename this EmbeddingService or remove that object",
            )
    return observation.apply_trouble


def _status(
    service: EmbeddingService,
    observation: Observation,
    load: Load,
    count: ScalingDecision,
    saturated: Condition,
    blocked: Trouble | None,
    wanted: list[Json],
) -> Json:
    deployment = next((m for m in wanted if m["kind"] == "Deployment"), None)
    facts = conditions.gather(
        observation,
        template_hash=None if deployment is None else pod_template.template_hash(deployment["spec"]["template"]),
        desired=count.replicas,
        enough=min(service.spec.fewest_replicas, count.replicas),
        blocked=blocked,
    )
    how_many = Condition(
        ConditionType.SCALING_ACTIVE, count.is_active, count.reason, f"{count.replicas} pods: {count.message}"
    )
    dated = conditions.dated(
        conditions.decide(facts, how_many, saturated),
        observation.status.get("conditions", []),
        generation=service.generation,
        now=observation.wall_time,
    )
    return status.build(service, observation, load, count.replicas, dated)


def _superfluous(wanted: list[Json], children: Mapping[ChildKey, Child]) -> list[Child]:
    keys = {drift.key_of(m) for m in wanted}
    return [child for key, child in children.items() if key not in keys and child.is_ours]


def _changes(apply: list[Apply], children: Mapping[ChildKey, Child]) -> list[Event]:
    told = [
        Event(
            EventReason.CHILD_RESTORED,
            f"{kind} {name} was changed or deleted by someone else; it is put right",
        )
        for a in apply
        if a.cause == "drift"
        for kind, name in [a.key]
    ]
    for change in apply:
        live = children.get(change.key)
        if change.key[0] == "Deployment" and live is not None and _template(live.body) != _template(change.manifest):
            told.append(Event(EventReason.ROLLOUT_STARTED, "pods of the current spec replace those of an earlier one"))
    return told


def _template(deployment: Json) -> str | None:
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return annotations.get(pod_template.TEMPLATE_HASH)
