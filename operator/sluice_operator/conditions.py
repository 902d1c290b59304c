"""Conditions from what was observed: one row of a truth table each. Pure.

The first row that holds decides. "Enough" is the number of pods that the spec asks for, or minReplicas where
the operator decides it, so that adding pods does not make a serving service unready. A pod that its gate alone
keeps out of traffic counts as ready as long as any pod receives traffic: it is able, and comes back.

Ready            the operator cannot make a child what it should be  False its reason
                 asked for no pods                                   False ScaledToZero
                 nothing of an earlier spec left, enough are ready   True  Serving
                 something is wrong                                  False its reason
                 pods of an earlier spec are left                    False RollingOut
                 otherwise                                           False how far the pods are
Available        a pod is ready, whatever its spec                   True  Serving
                 otherwise                                           False Ready's reason
Progressing      the operator cannot make a child what it should be  False its reason
                 something is wrong and not all pods are ready       False its reason
                 something beside the pods cannot be had             False its reason
                 all pods are of this spec and ready                 True  RolledOut
                 otherwise                                           True  RollingOut, Scaling, or how far the pods are
ModelLoaded      a pod of this spec has computed                     True  Loaded
                 no pod of this spec exists                          Unknown why there is none
                 otherwise                                           False what is wrong, or how far the pods are
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sluice_operator.reasons import ConditionType, Reason
from sluice_operator.values import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sluice_operator.values import Observation, Pod

_STAGES = {
    "starting": Reason.STARTING,
    "downloading": Reason.DOWNLOADING,
    "loading": Reason.LOADING,
    "warming": Reason.WARMING,
    "draining": Reason.DRAINING,
}


_STATUS = {True: "True", False: "False", None: "Unknown"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition before it is dated."""

    type: ConditionType
    holds: bool | None
    """None is Unknown."""
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the table is read with."""

    desired: int
    enough: int
    ready: int
    current: tuple[Pod, ...]
    """Pods of the current spec."""
    outdated: int
    """Pods of an earlier spec."""
    blocked: Trouble | None
    """What keeps the operator itself from acting."""
    trouble: Trouble | None
    """The worst of what is wrong, what keeps the operator from acting first."""
    shortfall: Trouble | None = None
    """What the spec asks for beside the pods and cannot be had; nobody is served worse for it."""

    @property
    def current_ready(self) -> int:
        """Pods of the current spec that receive traffic, and those that only their gate keeps from it."""
        return sum(p.is_ready or (p.is_gated and self.ready > 0) for p in self.current)

    @property
    def gated(self) -> int:
        """Pods of the current spec that only their gate keeps out of traffic."""
        return sum(p.is_gated for p in self.current)

    @property
    def is_complete(self) -> bool:
        """Every pod that should exist does, runs this spec, and receives traffic."""
        return self.outdated == 0 and self.current_ready == len(self.current) == self.desired


def gather(
    observation: Observation,
    *,
    template_hash: str | None,
    desired: int,
    enough: int,
    blocked: Trouble | None,
    strange: Trouble | None = None,
    shortfall: Trouble | None = None,
) -> Facts:
    """The facts of the table."""
    live = observation.live_pods
    current = tuple(p for p in live if p.template_hash == template_hash)
    rollout = observation.rollout
    # What a Deployment says of an earlier spec, or before its controller has looked again, is no news.
    speaks = rollout is not None and rollout.is_current and rollout.template_hash == template_hash
    return Facts(
        desired=desired,
        enough=enough,
        ready=sum(p.is_ready for p in live),
        current=current,
        outdated=len(live) - len(current),
        blocked=blocked,
        trouble=blocked or _worst(current) or strange or (rollout.trouble if rollout is not None and speaks else None),
        shortfall=shortfall,
    )


def decide(facts: Facts, *decided: Condition) -> list[Condition]:
    """All conditions of a service: by the table above, and those that were decided elsewhere."""
    return [ready(facts), available(facts), progressing(facts), model_loaded(facts), *decided]


def ready(facts: Facts) -> Condition:
    """Whether the service serves as specified."""
    kind, so_many = ConditionType.READY, _receiving(facts)
    if facts.blocked is not None:
        return Condition(kind, holds=False, reason=facts.blocked.reason, message=facts.blocked.message)
    if facts.desired == 0:
        return Condition(kind, holds=False, reason=Reason.SCALED_TO_ZERO, message="spec.replicas is 0")
    if facts.outdated == 0 and facts.current_ready >= facts.enough:
        return Condition(kind, holds=True, reason=Reason.SERVING, message=so_many)
    if facts.trouble is not None:
        return Condition(kind, holds=False, reason=facts.trouble.reason, message=facts.trouble.message)
    if facts.outdated:
        return Condition(kind, holds=False, reason=Reason.ROLLING_OUT, message=_rolling(facts))
    reason, message = stage(facts)
    return Condition(kind, holds=False, reason=reason, message=f"{so_many}; {message}")


def available(facts: Facts) -> Condition:
    """Whether anyone is served at all."""
    if facts.ready:
        message = f"{facts.ready} pods receive traffic"
        return Condition(ConditionType.AVAILABLE, holds=True, reason=Reason.SERVING, message=message)
    why = ready(facts)
    return Condition(ConditionType.AVAILABLE, holds=False, reason=why.reason, message=why.message)


def progressing(facts: Facts) -> Condition:
    """Whether the world moves towards the spec, or is there."""
    kind = ConditionType.PROGRESSING
    if facts.trouble is not None and (facts.blocked is not None or not facts.is_complete):
        return Condition(kind, holds=False, reason=facts.trouble.reason, message=facts.trouble.message)
    if facts.shortfall is not None:
        return Condition(kind, holds=False, reason=facts.shortfall.reason, message=facts.shortfall.message)
    if facts.is_complete:
        message = f"all {facts.desired} pods run the current spec"
        return Condition(kind, holds=True, reason=Reason.ROLLED_OUT, message=message)
    if facts.outdated:
        return Condition(kind, holds=True, reason=Reason.ROLLING_OUT, message=_rolling(facts))
    if facts.current_ready >= facts.enough:
        return Condition(kind, holds=True, reason=Reason.SCALING, message=_receiving(facts))
    reason, message = stage(facts)
    return Condition(kind, holds=True, reason=reason, message=message)


def model_loaded(facts: Facts) -> Condition:
    """Whether the model of the current spec computes somewhere."""
    kind, loaded = ConditionType.MODEL_LOADED, sum(map(_has_computed, facts.current))
    if loaded:
        message = f"{loaded} of {len(facts.current)} pods have loaded the model"
        return Condition(kind, holds=True, reason=Reason.LOADED, message=message)
    holds = False if facts.current else None
    if facts.desired == 0:
        return Condition(kind, holds, Reason.SCALED_TO_ZERO, "spec.replicas is 0")
    if facts.trouble is not None:
        return Condition(kind, holds, facts.trouble.reason, facts.trouble.message)
    return Condition(kind, holds, *stage(facts))


def stage(facts: Facts) -> tuple[Reason, str]:
    """How far those pods of the current spec are that receive no traffic yet: where most of them are."""
    waiting = [p for p in facts.current if not (p.is_ready or p.is_gated)]
    if not facts.current:
        return Reason.NO_PODS, "no pod of the current spec exists yet"
    if not waiting:
        return Reason.SCALING, f"{len(facts.current)} of {facts.desired} pods exist"
    stages = Counter(_stage(p) for p in waiting)
    reason = max(stages, key=lambda r: (stages[r], r))
    example = next(p for p in waiting if _stage(p) is reason)
    return reason, f"{stages[reason]} pods {_doing(example, reason)}"


def dated(
    conditions: Iterable[Condition], before: Iterable[dict[str, Any]], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions as the API wants them; the time of a transition is kept while the status stays."""
    known = {c["type"]: c for c in before}
    dates = []
    for condition in conditions:
        status = _STATUS[condition.holds]
        was = known.get(condition.type, {})
        since = was["lastTransitionTime"] if was.get("status") == status else now.strftime("%Y-%m-%dT%H:%M:%SZ")
        dates.append({
            "type": str(condition.type),
            "status": status,
            "reason": str(condition.reason),
            "message": condition.message,
            "lastTransitionTime": since,
            "observedGeneration": generation,
        })  # fmt: skip
    return dates


def _worst(pods: Iterable[Pod]) -> Trouble | None:
    """The trouble that most pods have, the server's own words first."""
    troubles = [t for p in pods if (t := _trouble(p)) is not None]
    if not troubles:
        return None
    counts = Counter(t.reason for t in troubles)
    worst = max(counts, key=lambda r: (r is Reason.MODEL_LOAD_FAILED, counts[r], r))
    example = min(t.message for t in troubles if t.reason is worst)
    return Trouble(worst, example if len(troubles) == 1 else f"{counts[worst]} pods: {example}")


def _trouble(pod: Pod) -> Trouble | None:
    if pod.report is not None and pod.report.health.phase == "failed":
        return Trouble(Reason.MODEL_LOAD_FAILED, pod.report.health.phase_reason or "the server gives no reason")
    return pod.trouble


def _has_computed(pod: Pod) -> bool:
    """Its gate is open, it receives traffic, or it says so: each follows only a real forward pass."""
    says_so = pod.report is not None and pod.report.health.phase in {"serving", "draining"}
    return says_so or pod.is_ready or (pod.report is None and bool(pod.gate_is_open))


def _stage(pod: Pod) -> Reason:
    if pod.report is None:
        return Reason.UNREACHABLE if pod.is_running else Reason.STARTING
    return _STAGES.get(pod.report.health.phase, Reason.NOT_ENOUGH_PODS_READY)


def _doing(pod: Pod, reason: Reason) -> str:
    health = pod.report.health if pod.report is not None else None
    if reason is Reason.WARMING and health is not None and health.phase_steps:
        return f"warm up, the first at step {health.phase_step or 0} of {health.phase_steps}"
    return {
        Reason.STARTING: "start",
        Reason.DOWNLOADING: "download the model",
        Reason.LOADING: "load the model",
        Reason.WARMING: "warm up",
        Reason.DRAINING: "finish their work",
        Reason.UNREACHABLE: "run but do not answer /health yet",
    }.get(reason, "serve and wait for the kubelet to say that they are ready")


def _receiving(facts: Facts) -> str:
    message = f"{facts.ready} of {facts.desired} pods receive traffic"
    return f"{message}, {facts.gated} kept out of it by closed gates" if facts.gated else message


def _rolling(facts: Facts) -> str:
    return (
        f"{facts.current_ready} of {facts.desired} pods of the current spec receive traffic, "
        f"{facts.outdated} of an earlier one are left"
    )
