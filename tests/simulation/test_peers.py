"""The peers decide as their documents say."""

import pytest

from simulation.policies import hpa, keda
from simulation.policies.hpa import Behavior
from simulation.policies.kpa import Kpa


@pytest.mark.parametrize(
    ("current", "values", "missing", "pods"),
    [
        (2, [2.0, 2.0], 0, 4),  # the ratio times the pods
        (10, [1.09] * 10, 0, 10),  # within the tolerance of a tenth
        (10, [1.11] * 10, 0, 12),
        (4, [0.5] * 4, 0, 2),
        (4, [4.0, 4.0], 2, 8),  # on the way up, pods without a metric count as zero
        (4, [1.5, 1.5], 2, 4),  # ... and turn no rise into a fall
        (4, [0.1, 0.1], 2, 3),  # on the way down, as at the target
        (4, [], 4, 4),
    ],
)  # fmt: skip
def test_hpa_follows_the_ratio(current: int, values: list[float], missing: int, pods: int) -> None:
    assert hpa.wanted_pods(current, values, missing, target=1.0) == pods


def test_hpa_doubles_or_adds_four_in_a_sync_and_falls_to_the_highest_of_its_window() -> None:
    behavior = Behavior(stabilization_seconds=300)
    assert behavior.apply(1, 30, 0) == 5
    assert behavior.apply(5, 30, 15) == 10
    assert behavior.apply(10, 8, 30) == 10
    assert [behavior.apply(10, 3, at) for at in (310, 329, 346)] == [10, 8, 3]


@pytest.mark.parametrize(("current", "total", "pods"), [(4, 4.3, 4), (4, 4.6, 5), (4, 9.1, 10), (4, 0.0, 0)])
def test_keda_divides_the_sum_by_the_threshold(current: int, total: float, pods: int) -> None:
    assert keda.wanted_pods(current, total, threshold=1.0) == pods


def test_kpa_panics_at_twice_the_ready_pods_and_only_adds_until_a_stable_window_later() -> None:
    kpa = Kpa("concurrency", 1.0)
    assert kpa.wanted_pods(4, stable=3.2, panic=7.0, now=0) == 4
    assert kpa.wanted_pods(4, stable=3.2, panic=8.0, now=2) == 8
    assert kpa.wanted_pods(8, stable=3.2, panic=3.0, now=60) == 8
    assert kpa.wanted_pods(8, stable=3.2, panic=3.0, now=64) == 4


def test_kpa_falls_to_half_at_most_and_after_its_delay() -> None:
    assert Kpa("rate", 1.0).wanted_pods(10, stable=0.5, panic=0.5, now=0) == 5
    delayed = Kpa("rate", 1.0, scale_down_delay_seconds=10)
    assert [delayed.wanted_pods(10, stable=s, panic=0, now=at) for at, s in ((0, 9), (8, 6), (10, 6))] == [9, 9, 6]
