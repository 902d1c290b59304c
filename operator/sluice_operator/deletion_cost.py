"""Which pods go first when there are to be fewer: those that have least left to compute. Pure.

The ReplicaSet controller prefers, among ready pods, those of lowest controller.kubernetes.io/pod-deletion-cost.
The annotation is written only right before the number of pods is lowered. Where all pods have the same to do,
none is written: Kubernetes then keeps pods spread over nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.values import Pod

CHEAP = -100
"""The cost of a pod that may go; every other pod has none, which counts as 0."""
_SAME_MILLISECONDS = 20
"""Drain times that differ by less say nothing."""


@dataclass(frozen=True, slots=True)
class CostChange:
    """A deletion cost to write; None removes it."""

    pod_name: str
    pod_uid: str
    cost: int | None


def cost_changes(pods: Iterable[Pod], remaining: int) -> list[CostChange]:
    """What to write before the number of pods is lowered.

    Args:
        pods: live pods of the service.
        remaining: how many are to stay.
    """
    ranked = sorted((p for p in pods if p.is_ready), key=_work_left)
    leaving = len(ranked) - remaining
    drains = [d for p in ranked if (d := _drain(p)) is not None]
    differ = len(drains) < len(ranked) or max(drains, default=0) - min(drains, default=0) >= _SAME_MILLISECONDS
    chosen = {p.uid for p in ranked[:leaving]} if leaving > 0 and differ else set()
    wanted = ((p, CHEAP if p.uid in chosen else None) for p in ranked)
    return [CostChange(p.name, p.uid, cost) for p, cost in wanted if p.deletion_cost != cost]


def _work_left(pod: Pod) -> tuple[bool, float, str]:
    """Orders pods by what is queued at them; one that does not say may have much."""
    drain = _drain(pod)
    return (drain is None, 0.0 if drain is None else drain, pod.name)


def _drain(pod: Pod) -> float | None:
    if pod.report is None:
        return None
    health = pod.report.health
    return 0.0 if health.queued_tokens == 0 and health.drain_milliseconds is None else health.drain_milliseconds
