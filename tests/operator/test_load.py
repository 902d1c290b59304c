"""Rates out of counters, as a timeline."""

from dataclasses import replace
from typing import Any

import pytest
from sluice_operator.load import Capacity, Load, LoadWindow
from sluice_operator.values import Pod, Report

from tests.operator.builders import health, pod


def answered(name: str, total: int, at: float, *, boot_id: str = "1") -> Pod:
    return pod(name, report=Report(health(boot_id=boot_id, offered_tokens_total=total), received_at=at))


def replay(window: LoadWindow, timeline: list[tuple[float, list[tuple[str, str, int]]]]) -> Load:
    """Feeds (time, [(pod, boot_id, offered_total)]) and returns the last load."""
    for now, said in timeline:
        last = window.observe([answered(n, total, now, boot_id=boot) for n, boot, total in said], now)
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


def test_what_was_offered_during_a_silence_is_no_surge() -> None:
    window = LoadWindow()
    replay(window, [(float(t), [("a", "1", 1000 * t)]) for t in range(0, 62, 2)])
    heard_again = replay(window, [(90.0, [("a", "1", 90_000)])])
    assert heard_again.offered_short == pytest.approx(1000)
    assert heard_again.offered_long == pytest.approx(1000)
    assert heard_again.offered_last == pytest.approx(1000)


def test_an_answer_that_is_still_believed_says_nothing_new() -> None:
    window = LoadWindow()
    replay(window, [(float(t), [("a", "1", 1000 * t)]) for t in range(0, 62, 2)])
    old = window.observe([answered("a", 60_000, 60.0)], 64.0)
    assert (old.offered_last, old.offered_short) == (1000, pytest.approx(600))
    assert replay(window, [(66.0, [("a", "1", 66_000)])]).offered_short == pytest.approx(1000)


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


def test_a_pod_that_is_idle_now_counts_as_when_it_was_busy() -> None:
    window = LoadWindow()
    fast = [busy_pod(10_000.0, name=n) for n in "abc"]
    window.observe([*fast, busy_pod(5_000.0, name="slow")], 0)
    idle = [busy_pod(20_000.0, name=n, busy=0.3) for n in "abc"]
    assert window.observe([*idle, busy_pod(5_000.0, name="slow")], 2).capacity == 10_000
    assert window.observe([*idle[:1], busy_pod(5_000.0, name="slow")], 4).capacity == 7_500
    assert window.observe([busy_pod(5_000.0, name="slow")], 6).capacity == 5_000


def test_silent_pods_are_counted_as_asked() -> None:
    seen = LoadWindow().observe([pod("a", says=health(queued_tokens=7)), pod("b"), pod("c", is_running=False)], 0)
    assert (seen.fresh_pods, seen.asked_pods, seen.queued_tokens) == (1, 2, 7)


def busy_pod(rate: float, *, version: str = "v1", busy: float = 0.9, name: str = "a") -> Pod:
    return pod(name, says=health(service_rate=rate, busy_fraction=busy), template_hash=version)


def test_what_was_measured_before_a_restart_goes_before_what_the_warm_up_says() -> None:
    window = LoadWindow()
    window.recall(Capacity(8_000.0, "v1"))
    assert window.observe([busy_pod(20_000.0, busy=0.1)], 0.0).capacity == 8_000
    seen = window.observe([busy_pod(9_000.0)], 2.0)
    assert (seen.capacity, seen.measured) == (9_000, Capacity(9_000.0, "v1"))
    window.recall(Capacity(8_000.0, "v1"))
    assert window.observe([busy_pod(20_000.0, busy=0.1)], 4.0).capacity == 9_000, "its own measurement is newer"


def test_another_version_is_measured_anew_once_most_pods_run_it() -> None:
    window = LoadWindow()
    window.observe([busy_pod(9_000.0)], 0.0)
    idle = [busy_pod(30_000.0, version="v2", busy=0.0, name=n) for n in ("b", "c")]
    half_way = window.observe([busy_pod(9_000.0, busy=0.0), idle[0]], 2.0)
    assert half_way.capacity in {9_000, 30_000}
    done = window.observe(idle, 4.0)
    assert (done.capacity, done.measured) == (30_000, None)


def test_while_no_pod_serves_what_was_measured_is_kept() -> None:
    window = LoadWindow()
    window.recall(Capacity(8_000.0, "v1"))
    silent = window.observe([pod("a", template_hash="v2")], 0.0)
    assert (silent.capacity, silent.measured) == (8_000, Capacity(8_000.0, "v1"))


def test_the_last_rate_is_that_of_each_pods_last_two_answers() -> None:
    window = LoadWindow()
    assert window.observe([answered("a", 500, 0), answered("b", 0, 0)], 0).offered_last is None
    assert window.observe([answered("a", 2_500, 2), answered("b", 600, 2)], 2).offered_last == 1_300
    one_silent = window.observe([answered("a", 8_500, 4), answered("b", 600, 2)], 4)
    assert one_silent.offered_last == 3_300
    heard_again = window.observe([answered("a", 8_500, 6), answered("b", 2_600, 6)], 6)
    assert heard_again.offered_last == 500
    assert window.observe([answered("a", 300, 8, boot_id="2"), answered("b", 2_600, 8)], 8).offered_last == 150


def test_the_load_is_worth_as_many_pods_as_the_larger_window_says() -> None:
    seen = Load(
        offered_short=30.0, offered_long=20.0, capacity=10.0, queued_tokens=0, fresh_pods=1, asked_pods=1
    )  # fmt: skip
    assert seen.pods_worth == 3
    assert replace(seen, offered_short=None).pods_worth == 2
    assert replace(seen, capacity=None).pods_worth is None
    assert replace(seen, offered_short=None, offered_long=None).pods_worth is None
