"""One policy under one scenario, second by second."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from simulation.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation.cluster import Series
    from simulation.policies import Policy
    from simulation.scenarios import Scenario
    from simulation.tunings import Tuning

SEED = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a policy cost and what it gave, since the scenario had settled."""

    scenario: str
    family: str
    tuning: str
    pod_seconds: int
    share_in_time: float
    """Of all requests, those answered within the objective."""
    refusals: int
    reversals: int
    """Changes of direction of the number of pods asked for."""
    changes: int
    seconds: int

    @property
    def mean_pods(self) -> float:
        """Pod-seconds per second."""
        return self.pod_seconds / self.seconds

    @property
    def late_share(self) -> float:
        """Of all requests, those refused for good or answered too late."""
        return 1 - self.share_in_time


def run(scenario: Scenario, policy: Policy, seed: int = SEED) -> Cluster:
    """Plays the whole scenario and returns the cluster at its end, with its series."""
    cluster = Cluster(scenario, seed, has_gates=policy.has_gates)
    for _ in range(scenario.seconds):
        cluster.advance()
        if cluster.now % policy.interval_seconds == 0:
            policy.decide(cluster)
    return cluster


def measure(scenario: Scenario, tuning: Tuning, seed: int = SEED) -> tuple[Result, Series]:
    """The figures of one run, and its series."""
    cluster = run(scenario, tuning.make(), seed)
    requested = cluster.series.requested[scenario.settle_seconds :]
    result = Result(
        scenario=scenario.name,
        family=tuning.family,
        tuning=tuning.name,
        pod_seconds=cluster.pod_seconds,
        share_in_time=cluster.clients.share,
        refusals=cluster.clients.refusals,
        reversals=reversals(requested),
        changes=sum(a != b for a, b in pairwise(requested)),
        seconds=scenario.seconds - scenario.settle_seconds,
    )
    return result, cluster.series


def reversals(requested: Sequence[int]) -> int:
    """How often a series that rose falls next, or the other way round."""
    signs = [b > a for a, b in pairwise(requested) if a != b]
    return sum(a != b for a, b in pairwise(signs))
