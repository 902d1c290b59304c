"""HorizontalPodAutoscaler v2 with a Pods metric: requests queued at each pod, as AverageValue.

From the documentation (Horizontal Pod Autoscaling: algorithm details, configurable scaling behavior) and the source
(replica_calculator.go, horizontal.go): every 15 s the ratio of the mean to the target, times the pods that are ready;
nothing within the tolerance of 10 %; pods without a metric count as at the target on the way down and as zero on the
way up, and never reverse the direction. Up: doubling or 4 pods in 15 s, whichever is more, without stabilization.
Down: the highest recommendation of the stabilization window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulation.scenarios import MAX_PODS, MIN_PODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation.cluster import Cluster

SYNC_SECONDS = 15
TOLERANCE = 0.1
_UP_SHARE, _UP_PODS = 1.0, 4


def wanted_pods(current: int, values: Sequence[float], missing: int, target: float) -> int:
    """The recommendation before bounds and behavior.

    Args:
        current: pods asked for.
        values: the metric of each pod that has one.
        missing: running pods without a metric, and pods that are pending.
        target: AverageValue.
    """
    if not values:
        return current
    ratio = sum(values) / len(values) / target
    if not missing:
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(values))
    pods = len(values) + missing
    total = sum(values) + (missing * target if ratio < 1 else 0.0)
    weighed = total / pods / target
    if abs(1 - weighed) <= TOLERANCE or (ratio < 1 < weighed) or (weighed < 1 < ratio):
        return current
    wanted = math.ceil(weighed * pods)
    reverses = (weighed < 1 and wanted > current) or (weighed > 1 and wanted < current)
    return current if reverses else wanted


@dataclass(slots=True)
class Behavior:
    """The default scaling behavior, with a stabilization window of its own."""

    stabilization_seconds: int
    _recommended: list[tuple[int, int]] = field(default_factory=list)
    _changes: list[tuple[int, int]] = field(default_factory=list)

    def apply(self, current: int, wanted: int, now: int) -> int:
        """The number to ask for, within the bounds, the windows and the rates."""
        self._recommended = [(at, n) for at, n in self._recommended if at > now - self.stabilization_seconds]
        self._recommended.append((now, wanted))
        if wanted < current:
            wanted = min(current, max(n for _, n in self._recommended))
        self._changes = [(at, n) for at, n in self._changes if at > now - SYNC_SECONDS]
        began_with = current - sum(n for _, n in self._changes)
        most = max(math.ceil(began_with * (1 + _UP_SHARE)), began_with + _UP_PODS)
        wanted = max(MIN_PODS, min(MAX_PODS, wanted, max(most, current)))
        if wanted > current:
            self._changes.append((now, wanted - current))
        return wanted


class Hpa:
    """An HPA at work."""

    interval_seconds = SYNC_SECONDS
    has_gates = False

    def __init__(self, target: float, *, window_seconds: int, stabilization_seconds: int) -> None:
        self._target = target
        self._window = window_seconds
        self._behavior = Behavior(stabilization_seconds)

    def decide(self, cluster: Cluster) -> None:
        """One sync."""
        measured = dict(zip(cluster.pods.uids, cluster.pods.mean_in_system(self._window), strict=True))
        heard = [p for p, answers in zip(cluster.live, cluster.hears(), strict=True) if answers and p.uid in measured]
        values = [float(measured[p.uid]) for p in heard]
        wanted = wanted_pods(cluster.requested, values, len(cluster.live) - len(values), self._target)
        replicas = self._behavior.apply(cluster.requested, wanted, cluster.now)
        if replicas != cluster.requested:
            cluster.scale(replicas)
