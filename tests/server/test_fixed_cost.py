"""What a batch costs beside its tokens: where the line through batches of different lengths meets zero."""

import pytest
from sluice_server.fixed_cost import FixedCost


def after(cost: FixedCost, *batches: tuple[float, float], times: int = 1) -> float:
    """What is believed when the batches, (length, seconds) each, have come so many times."""
    for _ in range(times):
        for length, seconds in batches:
            cost.observe(length, seconds)
    return cost.seconds


@pytest.mark.parametrize("believed", [0.0, 0.001, 0.004])
def test_batches_of_two_lengths_tell_it_whatever_was_believed(believed: float) -> None:
    assert after(FixedCost(believed), (1, 0.003), (10, 0.012), times=100) == pytest.approx(0.002, rel=0.01)


def test_batches_of_one_length_tell_nothing() -> None:
    assert after(FixedCost(0.002), (5, 0.02), times=1000) == pytest.approx(0.002)


def test_one_batch_is_enough_to_know_that_it_is_less_than_the_batch() -> None:
    assert after(FixedCost(0.06), (1, 0.005)) < 0.005


def test_it_follows_a_device_that_changes_within_some_seconds_of_work() -> None:
    cost = FixedCost(0.002)
    after(cost, (1, 0.003), (10, 0.012), times=1000)
    assert after(cost, (1, 0.006), (10, 0.015), times=1000) == pytest.approx(0.005, rel=0.05)


def test_batches_that_something_else_held_up_hardly_count() -> None:
    cost = FixedCost(0.002)
    held_up = after(cost, *[(1, 0.003), (10, 0.012)] * 10, (1, 0.2), times=20)
    assert held_up == pytest.approx(0.002, rel=0.1)


def test_it_is_never_negative() -> None:
    assert after(FixedCost(0.001), (1, 0.001), (10, 0.1), times=100) == 0.0
