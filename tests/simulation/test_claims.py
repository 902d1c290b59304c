"""What Sluice promises of its scaling: on the real decisions, and on the committed results of all scenarios."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from simulation import report, runs, scenarios, tunings
from simulation.__main__ import RESULTS
from simulation.cluster import Cluster
from simulation.policies.sluice import Sluice
from simulation.runs import Result
from simulation.scenarios import LONG_WARM_UP, POLL_SECONDS, SHORT_WARM_UP, Scenario
from simulation.traffic import POD_TOKENS_PER_SECOND, hold

FOUND = [Result(**fields) for fields in json.loads((RESULTS / "results.json").read_text())]


def of(scenario: Scenario) -> list[Result]:
    return [r for r in FOUND if r.scenario == scenario.name]


def played(rate: list[tuple[float, float]], *, seed: int = 1, **fields: object) -> tuple[Cluster, Sluice]:
    """The cluster after so much work for so many minutes each."""
    work = np.concatenate([hold(pods, minutes) for pods, minutes in rate])
    sluice = Sluice(stabilization_seconds=300)
    scenario = Scenario("made", "for a test", work, settle_seconds=0, **fields)  # type: ignore[arg-type]
    return runs.run(scenario, sluice, seed), sluice


@pytest.mark.parametrize("warm_up", [SHORT_WARM_UP, LONG_WARM_UP])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 10), (3, 15), (6, 12)])
@pytest.mark.parametrize("offset", [0, 1])
def test_two_polls_after_an_overload_can_be_seen_enough_pods_are_asked_for(
    before: int, after: int, offset: int, warm_up: int
) -> None:
    start = 420 + offset
    cluster, _ = played([(before, start / 60), (after, 0.5)], warm_up_seconds=warm_up, seed=offset + before)
    first_poll = start + POLL_SECONDS - start % POLL_SECONDS
    second_poll = first_poll + POLL_SECONDS
    assert cluster.series.requested[start - 1] < after
    assert cluster.series.requested[second_poll] >= after


@pytest.mark.parametrize("warm_up", [SHORT_WARM_UP, LONG_WARM_UP])
def test_after_an_overload_pods_do_not_take_turns_behind_closed_gates(warm_up: int) -> None:
    cluster, _ = played([(2, 5), (10, 10)], warm_up_seconds=warm_up)
    assert min(cluster.series.routed[-60:]) >= 12
    assert max(cluster.series.in_system[-60:]) < 40


def test_a_slow_pod_is_taken_out_of_traffic_again_and_again_and_the_others_stay() -> None:
    cluster, sluice = played([(6, 15)], has_slow_pods=True)
    slow = {p.uid for p in cluster.live if p.rate < POD_TOKENS_PER_SECOND}
    assert all(sluice.closed[uid] >= 5 for uid in slow)
    assert sum(times for uid, times in sluice.closed.items() if uid not in slow) <= 2
    assert min(cluster.series.routed[60:]) >= len(cluster.live) - 2


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("family", report.PEERS)
def test_a_peer_needs_more_pods_for_the_same_share_or_has_a_lower_share_at_the_same_pods(
    scenario: Scenario, family: str
) -> None:
    seen = report.against(of(scenario), family)
    assert seen.wins, seen


@pytest.mark.parametrize("scenario", [s for s in scenarios.ALL if "noisy" in s.name], ids=lambda s: s.name)
def test_noise_reverses_the_direction_once_in_ten_minutes_at_most(scenario: Scenario) -> None:
    sluice = report.ours(of(scenario))
    assert sluice.reversals <= sluice.seconds / 600


@pytest.mark.parametrize("name", ["2", "down after 300 s", "80% of a pod, scale-down delay 300 s"])
def test_the_committed_results_are_what_the_code_makes(name: str) -> None:
    scenario = scenarios.named("step")
    tuning = next(t for t in tunings.ALL if t.name.startswith(name))
    made = asdict(runs.measure(scenario, tuning)[0])
    kept = next(asdict(r) for r in of(scenario) if (r.family, r.tuning) == (tuning.family, tuning.name))
    assert made == kept


def test_every_scenario_and_tuning_is_in_the_committed_results() -> None:
    wanted = {(s.name, t.family, t.name) for s in scenarios.ALL for t in tunings.ALL}
    assert {(r.scenario, r.family, r.tuning) for r in FOUND} == wanted
