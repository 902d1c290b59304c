"""The decision about one service: values in, a plan with reasons out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sluice_operator import (
    conditions,
    deletion_cost,
    drift,
    manifests,
    obstacles,
    pod_template,
    pressure,
    readiness,
    replica_count,
    rollout_strategy,
    saturation,
    status,
    story,
    vector_space,
)
from sluice_operator.conditions import Condition
from sluice_operator.reasons import ConditionType, EventReason
from sluice_operator.scaling import ScalingMemory
from sluice_operator.status import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sluice_operator.deletion_cost import CostChange
    from sluice_operator.drift import Applied, Apply, ChildKey
    from sluice_operator.load import Load
    from sluice_operator.pressure import Pressure
    from sluice_operator.readiness import GateChange
    from sluice_operator.replica_count import ReplicaCount
    from sluice_operator.spec import EmbeddingService
    from sluice_operator.values import Child, Observation, Trouble
    from sluice_operator.vector_space import VectorSpace

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
    costs: list[CostChange]
    apply: list[Apply]
    delete: list[Child]
    facts: Json
    """The status as it is now."""
    status: Json | None
    """The same, to be written; None where what is written is as good."""
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
    space = vector_space.assess(service.spec.model, observation.status.get("model", {}), observation.live_pods)
    trusted = [p for p in observation.live_pods if p.uid not in space.strangers]
    fleet = pressure.of_serving(trusted, polls_over, pressure.Thresholds.of(service.spec))
    saturated = _saturated(service, observation, fleet, load)
    count = replica_count.decide(service, observation, load, memory.scaling, saturated)
    wanted = [] if image is None else _wanted(service, observation, children, image, count.replicas)
    apply = drift.to_apply(wanted, children, applied) if memory.may_apply else []
    rescales = count.changes and any(a.key[0] == "Deployment" for a in apply)
    new_status = _status(
        service, observation, load, count, saturated, obstacles.blocking(observation, wanted, children), wanted, space
    )
    told = [*story.of_children(apply, children), *status.events(observation.status, new_status)]
    told += [space.change] if space.change is not None else []
    if rescales:
        told.append(_record(new_status, count, observation))
    is_news = status.worth_writing(observation.status, new_status, memory.seconds_since_status)
    moment = readiness.Moment(
        saturated, _is_rolling(observation, apply), now=observation.wall_time, pods_worth=load.pods_worth
    )
    return Plan(
        gates=[
            *space.gate_changes(observation.live_pods),
            *readiness.gate_changes(service.spec.readiness, trusted, fleet, moment),
        ],
        costs=deletion_cost.cost_changes(observation.live_pods, count.replicas) if rescales and count.falls else [],
        apply=apply,
        delete=_superfluous(wanted, children) if image is not None else [],
        facts=new_status,
        status=new_status if is_news else None,
        events=told if is_news or apply else [],
        scaling=count.decision.memory,
    )


def _record(new_status: Json, count: ReplicaCount, observation: Observation) -> Event:
    """Puts the change of the number of pods into the status, and tells it."""
    before, after, why = count.before, count.replicas, count.decision.message
    record = status.scaling_record(before, after, why, observation.wall_time)
    new_status["scaling"] = {**new_status.get("scaling", {}), **record}
    return Event(EventReason.SCALED, f"{before} → {after} pods: {why}")


def _wanted(
    service: EmbeddingService, observation: Observation, children: Mapping[ChildKey, Child], image: str, replicas: int
) -> list[Json]:
    """All children that this cluster has a kind for."""
    live = children.get(("Deployment", service.name))
    made = manifests.children(
        service,
        image=image,
        replicas=replicas,
        strategy=rollout_strategy.choose(
            replicas,
            observation.live_pods,
            pod_template.template_hash(pod_template.pod_template(service, image)),
            None if live is None else rollout_strategy.of_deployment(live.body),
            observation.wall_time,
        ),
        gated=sum(p.is_gated for p in observation.live_pods),
    )
    return [manifest for manifest in made if manifest["kind"] not in observation.missing_kinds]


def _saturated(service: EmbeddingService, observation: Observation, fleet: list[Pressure], load: Load) -> Condition:
    asked = [p for p in observation.live_pods if p.is_running]
    return saturation.assess(
        fleet,
        service.spec.readiness,
        saturation.Before.of(observation.status),
        heard=sum(p.report is not None for p in asked),
        asked=len(asked),
        now=observation.wall_time,
        pods_worth=load.pods_worth,
    )


def _is_rolling(observation: Observation, apply: list[Apply]) -> bool:
    """Whether pods of one spec replace those of another, are about to, or nobody can tell."""
    rollout = observation.rollout
    if any(a.key[0] == "Deployment" for a in apply):
        return True
    return rollout is None or not rollout.is_current or rollout.updated_replicas != rollout.replicas


def _status(
    service: EmbeddingService,
    observation: Observation,
    load: Load,
    count: ReplicaCount,
    saturated: Condition,
    blocked: Trouble | None,
    wanted: list[Json],
    space: VectorSpace,
) -> Json:
    deployment = next((m for m in wanted if m["kind"] == "Deployment"), None)
    facts = conditions.gather(
        observation,
        template_hash=None if deployment is None else pod_template.template_hash(deployment["spec"]["template"]),
        desired=count.replicas,
        enough=min(service.spec.fewest_replicas, count.replicas),
        blocked=blocked,
        strange=space.trouble,
        shortfall=obstacles.beside_the_pods(observation),
    )
    decision = count.decision
    how_many = Condition(
        ConditionType.SCALING_ACTIVE, decision.is_active, decision.reason, f"{count.replicas} pods: {decision.message}"
    )
    dated = conditions.dated(
        conditions.decide(facts, how_many, saturated),
        observation.status.get("conditions", []),
        generation=service.generation,
        now=observation.wall_time,
    )
    return status.build(service, observation, load, count.replicas, dated, model=space.model, advice=count.advice)


def _superfluous(wanted: list[Json], children: Mapping[ChildKey, Child]) -> list[Child]:
    keys = {drift.key_of(m) for m in wanted}
    return [child for key, child in children.items() if key not in keys and child.is_ours]
