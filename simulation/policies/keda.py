"""KEDA with a Prometheus trigger: a sum over the service's pods against a threshold per pod.

From KEDA's documentation (Scaling Deployments, Prometheus scaler) and the HPA's source: KEDA hands the sum to an HPA
as an external metric of type AverageValue, which wants ceil(sum / threshold) pods whatever their readiness, nothing
within the tolerance of 10 %, under the HPA's behavior. Without an answer from Prometheus nothing changes. KEDA's
activation threshold and cooldown decide between 0 pods and 1 alone; here, as for all, one pod is the least.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from simulation.policies.hpa import SYNC_SECONDS, TOLERANCE, Behavior
from simulation.traffic import POD_TOKENS_PER_SECOND, REQUEST_TOKENS

if TYPE_CHECKING:
    from simulation.cluster import Cluster

_RATE_WINDOW_SECONDS = 60


def wanted_pods(current: int, total: float, threshold: float) -> int:
    """The recommendation before bounds and behavior."""
    ratio = total / (threshold * current)
    return current if abs(1 - ratio) <= TOLERANCE else math.ceil(total / threshold)


class Keda:
    """A ScaledObject and its HPA at work."""

    interval_seconds = SYNC_SECONDS
    has_gates = False

    def __init__(self, metric: Literal["queue", "rate"], threshold: float, *, stabilization_seconds: int) -> None:
        self._metric = metric
        self._threshold = threshold
        self._behavior = Behavior(stabilization_seconds)

    def decide(self, cluster: Cluster) -> None:
        """One sync of the HPA."""
        if not any(cluster.hears()):
            return
        wanted = wanted_pods(cluster.requested, self._total(cluster), self._threshold)
        replicas = self._behavior.apply(cluster.requested, wanted, cluster.now)
        if replicas != cluster.requested:
            cluster.scale(replicas)

    def _total(self, cluster: Cluster) -> float:
        """Requests in all systems now, or requests of the last minute in pods of full speed."""
        if self._metric == "queue":
            return cluster.series.in_system[-1]
        asked = cluster.series.asked[-_RATE_WINDOW_SECONDS:]
        return sum(asked) / len(asked) * REQUEST_TOKENS / POD_TOKENS_PER_SECOND
