"""How long work takes: seeded by warm-up, corrected by batches, never diluted by idle time."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sluice_server.cost import CostModel, Measurement

from tests.fakes import steady_cost

BOUNDARIES = (16, 64)


def test_before_anything_was_measured_every_time_is_unknown() -> None:
    cost = CostModel(BOUNDARIES)
    assert cost.seconds(100, 16) is None
    assert cost.batch_seconds({16: 100}) is None
    assert cost.full_batch_rate(0.025) is None


def test_the_warm_up_tells_fixed_cost_from_the_cost_of_tokens() -> None:
    cost = CostModel(BOUNDARIES)
    cost.seed([Measurement(16, 100, 0.015), Measurement(16, 1000, 0.105)])
    assert cost.fixed_seconds == pytest.approx(0.005)
    assert cost.batch_seconds({16: 1000}) == pytest.approx(0.105)
    assert cost.full_batch_rate(0.105) == pytest.approx(1000 / 0.105)


@pytest.mark.parametrize(
    ("rate", "fixed", "tokens", "batches", "within"),
    [(10_000, 0.005, 10, 500, 0.01), (500_000, 0.001, 20, 5000, 0.1)],
    ids=["a CPU", "a GPU, whose small batches are nearly all fixed cost"],
)
def test_small_batches_of_quiet_traffic_do_not_make_the_device_look_slow(
    rate: float, fixed: float, tokens: int, batches: int, within: float
) -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=rate, fixed_seconds=fixed)
    before = cost.full_batch_rate(0.025)
    for _ in range(batches):
        cost.observe({16: tokens}, fixed + tokens / rate)
    assert cost.full_batch_rate(0.025) == pytest.approx(before, rel=within)


@pytest.mark.parametrize("warmed_up", [0.0, 0.002, 0.06], ids=["too fast", "right", "thirty times too slow"])
def test_a_fixed_cost_that_the_warm_up_got_wrong_is_put_right_by_traffic_of_all_lengths(warmed_up: float) -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=6_000, fixed_seconds=warmed_up)
    for tokens in (10, 300, 40, 80, 1000, 15, 120) * 60:
        cost.observe({16: tokens}, 0.002 + tokens / 6_000)
    assert cost.batch_seconds({16: 10}) == pytest.approx(0.002 + 10 / 6_000, rel=0.15)
    assert cost.batch_seconds({16: 1000}) == pytest.approx(0.002 + 1000 / 6_000, rel=0.02)


def test_a_machine_that_was_busy_while_it_warmed_up_makes_no_long_batches_out_of_bulk_work() -> None:
    """One person's text after each batch of bulk work, whose batches are as long as the cost model has them."""
    cost = steady_cost(BOUNDARIES, tokens_per_second=6_000, fixed_seconds=0.06)
    first = cost.tokens_within(0.008, 16)
    for _ in range(100):
        bulk = cost.tokens_within(0.008, 16)
        for tokens in (bulk, 10):
            cost.observe({16: tokens}, 0.002 + tokens / 6_000)
    assert first > 1000
    assert cost.tokens_within(0.008, 16) < 60


@settings(max_examples=30, deadline=None)
@given(
    fixed=st.floats(1e-3, 0.05),
    rate=st.floats(500, 50_000),
    wrong=st.floats(0.2, 5),
    lengths=st.lists(st.integers(10, 2000), min_size=1, max_size=6, unique=True),
)
@example(fixed=0.05, rate=500, wrong=4.0, lengths=[71, 1033])
@example(fixed=0.043, rate=50_000, wrong=0.2, lengths=[806, 71, 10, 11, 49])
def test_what_batches_take_is_learned_of_any_device_in_half_a_minute_of_work_or_twenty_batches(
    fixed: float, rate: float, wrong: float, lengths: list[int]
) -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=rate * wrong, fixed_seconds=fixed * wrong)
    truth = {tokens: fixed + tokens / rate for tokens in lengths}
    for _ in range(max(math.ceil(30 / sum(truth.values())), math.ceil(20 / len(truth)))):
        for tokens, seconds in truth.items():
            cost.observe({16: tokens}, seconds)
    for tokens, seconds in truth.items():
        assert cost.batch_seconds({16: tokens}) == pytest.approx(seconds, rel=0.2)


def test_a_device_that_slows_down_is_believed_after_some_busy_seconds() -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=10_000)
    for _ in range(200):
        cost.observe({16: 500}, 0.1)
    assert cost.seconds(5000, 16) == pytest.approx(1.0, rel=0.02)


def test_what_callers_live_through_beside_the_device_counts_within_a_second() -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=10_000)
    for _ in range(40):
        cost.observe({16: 500}, 0.05, lived_seconds=0.06)
    assert cost.batch_seconds({16: 500}) == pytest.approx(0.06, rel=0.02)
    assert cost.full_batch_rate(0.05) == pytest.approx(500 / 0.06, rel=0.02)


def test_what_small_batches_were_handed_over_in_makes_no_long_batch_look_slow() -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=10_000)
    for _ in range(100):
        cost.observe({16: 50}, 0.005, lived_seconds=0.01)
    assert cost.batch_seconds({16: 50}) == pytest.approx(0.01, rel=0.05)
    assert cost.batch_seconds({16: 1000}) == pytest.approx(0.105, rel=0.02)


def test_a_device_that_is_slow_for_now_is_slow_for_batches_of_every_length() -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=10_000)
    for _ in range(20):
        cost.observe({16: 500}, 0.1, lived_seconds=0.1)
    assert cost.batch_seconds({16: 500}) == pytest.approx(0.1, rel=0.1)
    assert cost.batch_seconds({16: 50}) == pytest.approx(0.01, rel=0.1)


def test_answers_that_come_at_once_after_a_late_one_are_no_negative_hand_over() -> None:
    """The device had begun the next batch while the answer before it was on its way."""
    cost = steady_cost(BOUNDARIES, tokens_per_second=10_000)
    for lived in (0.08, 0.02) * 20:
        cost.observe({16: 500}, 0.05, lived_seconds=lived)
    assert cost.batch_seconds({16: 500}) == pytest.approx(0.05, rel=0.02)
    cost.observe({16: 500}, 0.05, lived_seconds=0.0)
    assert cost.batch_seconds({16: 500}) >= 0.05


def test_a_large_fixed_cost_makes_batches_longer_than_wished() -> None:
    cost = steady_cost(BOUNDARIES, tokens_per_second=10_000, fixed_seconds=0.02)
    assert cost.tokens_within(0.025, 16) == pytest.approx(600, rel=0.01)


def test_a_bucket_without_a_measurement_takes_its_neighbours_rate() -> None:
    cost = CostModel((16, 32, 512))
    cost.seed([Measurement(16, 1000, 0.1), Measurement(512, 1000, 0.2)])
    assert cost.seconds(1000, 32) == cost.seconds(1000, 16)


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-4, 2)), min_size=1, max_size=50))
def test_the_rate_lies_between_the_slowest_and_the_fastest_batch(batches: list[tuple[int, float]]) -> None:
    cost = CostModel((16,))
    for tokens, seconds in batches:
        cost.observe({16: tokens}, seconds)
    rates = [tokens / seconds for tokens, seconds in batches]
    assert min(rates) * 0.999 <= 1 / cost.seconds(1, 16) <= max(rates) * 1.001
