"""Deployment, kubelet and endpoints: pods come up, become ready, receive traffic, drain and go.

A pod exists, and costs, from the moment it is asked for. Its server answers after `START_SECONDS`, and computes after
the warm-up. It receives traffic `PROPAGATION_SECONDS` after it became ready: kubelet, EndpointSlice, resolvers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from simulation.clients import Clients
from simulation.pods import Pods
from simulation.traffic import POD_TOKENS_PER_SECOND, STEPS_PER_SECOND, requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulation.scenarios import Scenario

START_SECONDS = 5
PROPAGATION_SECONDS = 2
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_SLOW_EVERY, _SLOW_FIRST = 10, 3


@dataclass(slots=True)
class Pod:
    """One pod; times are seconds since the run began."""

    uid: int
    created_at: int
    serves_at: int
    rate: float
    deleted_at: int | None = None
    gate_is_open: bool | None = None
    gate_since: datetime | None = None
    gate_reason: str | None = None
    is_ready: bool = False
    ready_since: int = -PROPAGATION_SECONDS
    """When `is_ready` last changed."""

    def is_routed(self, now: int) -> bool:
        """Whether clients send to it."""
        return self.is_ready == (now - self.ready_since >= PROPAGATION_SECONDS)


@dataclass(frozen=True, slots=True)
class Gate:
    """A pod's readiness gate is to be opened or closed."""

    uid: int
    opens: bool
    reason: str


@dataclass(slots=True)
class Series:
    """What happened, one value for each second."""

    asked: list[int] = field(default_factory=list)
    """Requests that arrived at pods, repeated ones included."""
    in_system: list[float] = field(default_factory=list)
    """Requests waiting or being computed."""
    requested: list[int] = field(default_factory=list)
    existing: list[int] = field(default_factory=list)
    routed: list[int] = field(default_factory=list)


class Cluster:
    """One service's pods under one scenario."""

    def __init__(self, scenario: Scenario, seed: int, *, has_gates: bool) -> None:
        self.scenario = scenario
        self.now = 0
        self.has_gates = has_gates
        self.requested = scenario.initial_pods
        self.live: list[Pod] = []
        """Not deleted; oldest first."""
        self.series = Series()
        self._leaving: list[Pod] = []
        self._created = 0
        self._next_change = 0
        drawn = requests(scenario.rate, seed)
        measured = scenario.settle_seconds * STEPS_PER_SECOND
        self.clients = Clients(drawn, retries=scenario.clients_retry, measure_from_step=measured)
        self.pods = Pods(np.random.default_rng(seed + 1))
        self._silence = np.random.default_rng(seed + 2)
        for _ in range(self.requested):
            self._create(serves_at=0)

    @property
    def wall_time(self) -> datetime:
        """The present as the API server's clock tells it."""
        return _EPOCH + timedelta(seconds=self.now)

    @property
    def pod_seconds(self) -> int:
        """What all pods cost since measuring began."""
        return sum(self.series.existing[self.scenario.settle_seconds :])

    def advance(self) -> None:
        """One second."""
        if self.now >= self._next_change:
            self._follow()
        second = self.pods.serve(self.now, self.clients)
        series = self.series
        series.asked.append(second.asked)
        series.in_system.append(second.in_system)
        series.requested.append(self.requested)
        series.existing.append(len(self.live) + len(self._leaving))
        series.routed.append(self.pods.routed)
        self.now += 1

    def scale(self, replicas: int) -> None:
        """The Deployment's number of pods; those that go are chosen as a ReplicaSet chooses."""
        self.requested = replicas
        for _ in range(replicas - len(self.live)):
            self._create(serves_at=self.now + START_SECONDS + self.scenario.warm_up_seconds)
        excess = len(self.live) - replicas
        if excess > 0:
            victims = sorted(self.live, key=lambda p: (p.is_ready, -p.created_at, -p.uid))[:excess]
            self.live = [p for p in self.live if p not in victims]
            for pod in victims:
                pod.deleted_at = self.now
                self._set_ready(pod, is_ready=False)
            self._leaving += victims
        self._next_change = self.now

    def set_gates(self, gates: Iterable[Gate]) -> None:
        """Writes pods' gate conditions."""
        by_uid = {p.uid: p for p in self.live}
        for gate in gates:
            pod = by_uid[gate.uid]
            pod.gate_is_open, pod.gate_since, pod.gate_reason = gate.opens, self.wall_time, gate.reason
            self._next_change = self.now

    def is_running(self, pod: Pod) -> bool:
        """Whether its server answers."""
        return self.now >= min(pod.created_at + START_SECONDS, pod.serves_at)

    def serves(self, pod: Pod) -> bool:
        """Whether it has warmed up."""
        return self.now >= pod.serves_at

    def hears(self) -> list[bool]:
        """For each live pod, whether it answers when it is asked now; drawn anew at each call."""
        draws = self._silence.random(len(self.live))
        lost = self.scenario.lost_share(self.now)
        return [bool(draw >= lost) for draw in draws]

    def _create(self, *, serves_at: int) -> None:
        is_slow = self.scenario.has_slow_pods and self._created % _SLOW_EVERY == _SLOW_FIRST
        rate = POD_TOKENS_PER_SECOND * (0.5 if is_slow else 1.0)
        pod = Pod(self._created, self.now, serves_at, rate)
        if serves_at <= self.now:
            pod.is_ready, pod.gate_is_open = True, True
        self.live.append(pod)
        self._created += 1

    def _follow(self) -> None:
        """Lets the kubelet and the endpoints follow what has changed."""
        for pod in self.live:
            self._set_ready(pod, is_ready=self.serves(pod) and (not self.has_gates or pod.gate_is_open is True))
        queued = dict(zip(self.pods.uids, self.pods.queued, strict=True))
        self._leaving = [p for p in self._leaving if p.is_routed(self.now) or queued.get(p.uid, 0) > 0]
        serving = [p for p in self.live if self.serves(p)] + self._leaving
        routed = [i for i, p in enumerate(serving) if p.is_routed(self.now)]
        self.pods.rebuild([p.uid for p in serving], [p.rate for p in serving], routed)
        self._next_change = self._when_next(serving)

    def _set_ready(self, pod: Pod, *, is_ready: bool) -> None:
        if pod.is_ready != is_ready:
            pod.is_ready, pod.ready_since = is_ready, self.now

    def _when_next(self, serving: list[Pod]) -> int:
        if self._leaving:
            return self.now + 1
        times = [p.serves_at for p in self.live] + [p.ready_since + PROPAGATION_SECONDS for p in serving]
        return min((t for t in times if t > self.now), default=1 << 60)
