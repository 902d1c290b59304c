"""Knative's pod autoscaler: concurrency or rate over a stable window of 60 s and a panic window of 6 s.

From Knative's documentation (Configuring KPA autoscaling) and source (pkg/autoscaler/scaling/autoscaler.go): every
2 s ceil(observed / target) for both windows, at most 1000 times the ready pods and at least half of them. Panic begins
when the panic window wants twice the ready pods, lasts until a stable window has passed without, and only adds pods.
Without data nothing changes. The activator, which buffers requests in front of pods, has no part here: clients call
pods themselves.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Literal

from simulation.scenarios import MAX_PODS, MIN_PODS
from simulation.traffic import POD_TOKENS_PER_SECOND, REQUEST_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation.cluster import Cluster

TICK_SECONDS = 2
STABLE_SECONDS, PANIC_SECONDS = 60, 6
PANIC_THRESHOLD = 2.0
MAX_SCALE_UP, MAX_SCALE_DOWN = 1000.0, 2.0


class Kpa:
    """A KPA decider at work."""

    interval_seconds = TICK_SECONDS
    has_gates = False

    def __init__(
        self, metric: Literal["concurrency", "rate"], target: float, *, scale_down_delay_seconds: int = 0
    ) -> None:
        self._metric = metric
        self._target = target
        self._delay = scale_down_delay_seconds
        self._delayed: deque[tuple[int, int]] = deque()
        self._panic_since: int | None = None
        self._most_in_panic = 0

    def decide(self, cluster: Cluster) -> None:
        """One tick."""
        if not any(cluster.hears()):
            return
        ready = sum(p.is_ready for p in cluster.live)
        stable, panic = self._observed(cluster, STABLE_SECONDS), self._observed(cluster, PANIC_SECONDS)
        replicas = self.wanted_pods(ready, stable, panic, cluster.now)
        if replicas != cluster.requested:
            cluster.scale(replicas)

    def wanted_pods(self, ready_pods: int, stable: float, panic: float, now: int) -> int:
        """The number to ask for, from what both windows observed."""
        ready = max(1, ready_pods)
        most, least = math.ceil(MAX_SCALE_UP * ready), math.floor(ready / MAX_SCALE_DOWN)
        by_stable = min(max(math.ceil(stable / self._target), least), most)
        panicky = math.ceil(panic / self._target)
        by_panic = min(max(panicky, least), most)
        if panicky / ready >= PANIC_THRESHOLD:
            self._panic_since = now
        elif self._panic_since is not None and now - self._panic_since > STABLE_SECONDS:
            self._panic_since, self._most_in_panic = None, 0
        wanted = by_stable
        if self._panic_since is not None:
            self._most_in_panic = wanted = max(by_stable, by_panic, self._most_in_panic)
        return max(MIN_PODS, min(MAX_PODS, self._delayed_down(wanted, now)))

    def _delayed_down(self, wanted: int, now: int) -> int:
        """The most that was wanted within the scale-down delay."""
        while self._delayed and (self._delayed[0][0] <= now - self._delay):
            self._delayed.popleft()
        while self._delayed and self._delayed[-1][1] <= wanted:
            self._delayed.pop()
        self._delayed.append((now, wanted))
        return self._delayed[0][1]

    def _observed(self, cluster: Cluster, seconds: int) -> float:
        """Mean over the window and sum over the pods; a rate is in pods of full speed."""
        values: Sequence[float] = cluster.series.in_system if self._metric == "concurrency" else cluster.series.asked
        window = values[-seconds:]
        mean = sum(window) / len(window)
        return mean if self._metric == "concurrency" else mean * REQUEST_TOKENS / POD_TOKENS_PER_SECOND
