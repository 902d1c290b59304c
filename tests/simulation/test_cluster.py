"""Pods come and go as a Deployment's do."""

import numpy as np

from simulation.cluster import PROPAGATION_SECONDS, START_SECONDS, Cluster, Gate
from simulation.scenarios import Scenario


def cluster(pods: float, *, seconds: int = 600, has_gates: bool = False, **fields: object) -> Cluster:
    made = Scenario("made", "for a test", np.full(seconds, pods), settle_seconds=0, warm_up_seconds=20, **fields)  # type: ignore[arg-type]
    return Cluster(made, 1, has_gates=has_gates)


def advance(seen: Cluster, seconds: int) -> Cluster:
    for _ in range(seconds):
        seen.advance()
    return seen


def test_a_new_pod_costs_at_once_and_gets_traffic_when_it_has_warmed_up_and_clients_know() -> None:
    seen = advance(cluster(1), 10)
    seen.scale(3)
    advance(seen, 60)
    came = 10 + START_SECONDS + 20 + PROPAGATION_SECONDS
    assert seen.series.existing[9:11] == [2, 3]
    assert (seen.series.routed[came - 1], seen.series.routed[came]) == (2, 3)


def test_a_pod_with_a_gate_waits_for_it() -> None:
    seen = advance(cluster(1, has_gates=True), 10)
    seen.scale(3)
    assert advance(seen, 100).series.routed[-1] == 2
    seen.set_gates([Gate(2, opens=True, reason="Serving")])
    assert advance(seen, PROPAGATION_SECONDS + 1).series.routed[-1] == 3


def test_pods_that_are_not_ready_go_first_then_the_youngest_and_drain_before_they_are_gone() -> None:
    seen = advance(cluster(4), 10)
    assert [p.uid for p in seen.live] == [0, 1, 2, 3, 4, 5]
    seen.scale(7)
    seen.scale(5)
    assert [p.uid for p in seen.live] == [0, 1, 2, 3, 4]
    advance(seen, 30)
    assert seen.series.existing[10] == 6
    assert seen.series.existing[-1] == 5
    assert seen.clients.refusals == 0


def test_every_tenth_pod_is_slow_where_the_scenario_says_so() -> None:
    rates = [p.rate for p in cluster(14, has_slow_pods=True).live]
    assert [i for i, rate in enumerate(rates) if rate < 10_000] == [3, 13]


def test_polls_are_lost_as_the_scenario_says() -> None:
    seen = cluster(25, seconds=2000, loses_polls=True)
    shares = {}
    for second in (100, 910, 1250):
        seen.now = second
        shares[second] = np.mean([seen.hears() for _ in range(200)])
    assert shares[910] == 0
    assert 0.88 < shares[100] < 0.92
    assert 0.47 < shares[1250] < 0.53
