"""How many pods a service is to have: by scaling.mode, as `scaling` advises, or as someone else says. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sluice_operator import scaling, status
from sluice_operator.reasons import Reason
from sluice_operator.scaling import Fleet, ScalingDecision, ScalingMemory

if TYPE_CHECKING:
    from sluice_operator.conditions import Condition
    from sluice_operator.load import Load
    from sluice_operator.spec import EmbeddingService
    from sluice_operator.values import Observation


@dataclass(frozen=True, slots=True)
class ReplicaCount:
    """The number of pods before and after."""

    before: int | None
    """What the Deployment asks for; None where there is none yet."""
    decision: ScalingDecision
    advice: ScalingDecision | None = None
    """What Internal would choose, where it only advises."""

    @property
    def replicas(self) -> int:
        """Pods that should exist."""
        return self.decision.replicas

    @property
    def changes(self) -> bool:
        """Whether a number that was there becomes another one."""
        return self.before not in {None, self.replicas}

    @property
    def falls(self) -> bool:
        """Whether pods are to go."""
        return self.before is not None and self.replicas < self.before


def decide(
    service: EmbeddingService, observation: Observation, load: Load, memory: ScalingMemory, saturated: Condition
) -> ReplicaCount:
    """The number of pods by scaling.mode, each with its reason."""
    spec, before = service.spec, None if observation.rollout is None else observation.rollout.requested_replicas
    fleet = _fleet(before, observation, saturated)
    fixed = spec.fixed_replicas
    if fixed is None:
        memory = replace(memory, advised=None)
        return ReplicaCount(before, scaling.decide(spec.scaling, fleet, load, memory, observation.now))
    if spec.scaling.mode == "Off":
        memory = replace(memory, advised=None)
        return ReplicaCount(before, ScalingDecision(fixed, Reason.FIXED, "scaling.mode is Off", False, memory))
    if memory.advised is None:
        memory = replace(memory, advised=status.advised(observation.status))
    advice = scaling.advise(spec.scaling, fleet, load, memory, observation.now)
    if spec.scaling.mode == "Observe":
        message = f"scaling.mode is Observe; Internal would ask for {advice.replicas}: {advice.message}"
        return ReplicaCount(before, ScalingDecision(fixed, Reason.OBSERVING, message, False, advice.memory), advice)
    message = "an autoscaler decides through the scale subresource"
    return ReplicaCount(
        before, ScalingDecision(fixed, Reason.EXTERNAL_AUTOSCALER, message, True, advice.memory), advice
    )


def _fleet(requested: int | None, observation: Observation, saturated: Condition) -> Fleet:
    live, rollout = observation.live_pods, observation.rollout
    return Fleet(
        requested=requested,
        ready=sum(p.is_ready or p.is_gated for p in live),
        is_settled=rollout is not None
        and rollout.is_current
        and rollout.updated_replicas == rollout.replicas == rollout.requested_replicas == len(live)
        and all(p.is_ready or p.is_gated for p in live),
        is_pressed=bool(saturated.holds),
        closed=sum(p.has_gate and p.gate_is_open is False for p in live),
    )
