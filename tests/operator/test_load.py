"""Rates out of counters, as a timeline."""

from typing import Any

import pytest
from sluice_operator.load import Load, LoadWindow

from tests.operator.builders import health, pod


def replay(window: LoadWindow, timeline: list[tuple[float, list[tuple[str, str, int]]]]) -> Load:
    """Feeds (time, [(pod, boot_id, offered_total)]) and returns the last load."""
    for now, said in timeline:
        last = window.observe([pod(n, says=health(boot_id=b, offered_tokens_total=t)) for n, b, t in said], now)
    return last


def test_a_steady_stream_is_measured() -> None:
    seen = replay(LoadWindow(), [(float(t), [("a", "1", 1000 * t)]) for t in range(0, 62, 2)])
    assert seen.offered_short == pytest.approx(1000)
    assert seen.offered_long == pytest.approx(1000)


def test_nothing_is_said_before_half_a_window_was_seen() -> None:
    window = LoadWindow()
    assert replay(window, [(0.0, [("a", "1", 0)]), (4.0, [("a", "1", 9000)])]).offered_short is None
    assert replay(window, [(6.0, [("a", "1", 12_000)])]).offered_short == pytest.approx(2000)


def test_what_was_offered_before_a_pod_was_first_seen_is_no_load() -> None:
    window = LoadWindow()
    replay(window, [(float(t), [("a", "1", 0)]) for t in range(0, 12, 2)])
    joined = replay(window, [(12.0, [("a", "1", 0), ("b", "1", 5_000_000)])])
    assert joined.offered_short == 0


def test_a_restarted_pod_counts_from_zero() -> None:
    window = LoadWindow()
    replay(window, [(float(t), [("a", "1", 100_000)]) for t in range(0, 12, 2)])
    assert replay(window, [(12.0, [("a", "2", 600)])]).offered_short == pytest.approx(60)


def test_load_of_a_pod_that_left_stays_in_the_window() -> None:
    window = LoadWindow()
    replay(window, [(float(t), [("a", "1", 1000 * t)]) for t in range(0, 12, 2)])
    assert replay(window, [(12.0, [("b", "1", 0)])]).offered_short == pytest.approx(800)


def test_the_short_window_forgets_sooner_than_the_long_one() -> None:
    window = LoadWindow()
    replay(window, [(float(t), [("a", "1", 1000 * t)]) for t in range(0, 62, 2)])
    seen = replay(window, [(float(t), [("a", "1", 60_000)]) for t in range(62, 76, 2)])
    assert seen.offered_short == 0
    assert seen.offered_long is not None
    assert 700 <= seen.offered_long <= 800


@pytest.mark.parametrize(
    ("pods", "capacity"),
    [
        ([{"busy_fraction": 0.9, "service_rate": 10.0}, {"busy_fraction": 0.1, "service_rate": 99.0}], 10.0),
        ([{"busy_fraction": 0.6, "service_rate": r} for r in (8.0, 10.0, 90.0)], 10.0),
        ([{"busy_fraction": None, "service_rate": 7.0}], 7.0),
        ([{"phase": "warming", "service_rate": 7.0}], None),
        ([{"service_rate": None}], None),
        ([], None),
    ],
    ids=["busy-only", "median", "calibration", "warming", "unknown", "nobody"],
)
def test_what_one_pod_can_do(pods: list[dict[str, Any]], capacity: float | None) -> None:
    said = [pod(f"p{i}", says=health(**{"phase": "serving", **fields})) for i, fields in enumerate(pods)]
    assert LoadWindow().observe(said, 0).capacity == capacity


def test_what_was_measured_is_remembered_while_nobody_is_busy() -> None:
    window = LoadWindow()
    window.observe([pod(says=health(busy_fraction=1.0, service_rate=5.0))], 0)
    assert window.observe([pod(says=health(busy_fraction=0.0, service_rate=50.0))], 2).capacity == 5.0


def test_silent_pods_are_counted_as_asked() -> None:
    seen = LoadWindow().observe([pod("a", says=health(queued_tokens=7)), pod("b"), pod("c", is_running=False)], 0)
    assert (seen.fresh_pods, seen.asked_pods, seen.queued_tokens) == (1, 2, 7)
