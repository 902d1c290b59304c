"""Rounds, ratios within them, and percentiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import rounds
from bench.rounds import Spread
from tests.bench.builders import turn


def test_the_order_of_turns_rotates() -> None:
    assert [rounds.order(["A", "B", "C"], number) for number in range(4)] == [
        ["A", "B", "C"],
        ["B", "C", "A"],
        ["C", "A", "B"],
        ["A", "B", "C"],
    ]


@given(st.lists(st.text(min_size=1), max_size=8, unique=True), st.integers(0, 100))
def test_everybody_has_one_turn_in_every_round(names: list[str], number: int) -> None:
    assert sorted(rounds.order(names, number)) == sorted(names)


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_minute_does_not_show() -> None:
    turns = [turn("A", 0, 200), turn("B", 0, 100), turn("B", 1, 10), turn("A", 1, 30)]
    assert rounds.ratio(turns, "A", "B", lambda one: one.tokens_per_second) == Spread(2.5, 2.0, 3.0)


def test_rounds_without_both_say_nothing_of_their_ratio() -> None:
    turns = [turn("A", 0, 200), turn("B", 1, 100), turn("A", 2, 300), turn("B", 2, 0)]
    assert rounds.ratio(turns, "A", "B", lambda one: one.tokens_per_second) is None


@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_known_has_no_spread(values: list[float | None]) -> None:
    assert rounds.spread(values) is None


def test_a_spread_is_of_what_is_known() -> None:
    assert rounds.spread([3.0, None, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_those_of_numpy_and_ascend(values: list[float]) -> None:
    found = rounds.percentiles(values)
    assert found == pytest.approx(tuple(np.percentile(values, (50, 95, 99))))
    assert found is not None
    assert list(found) == sorted(found)


def test_no_answers_have_no_percentiles() -> None:
    assert rounds.percentiles([]) is None


def test_cpu_is_counted_for_each_thousand_useful_tokens() -> None:
    assert turn("A", 0, 1000, cpu_seconds=4.0).cpu_seconds_per_1k_tokens == pytest.approx(2.0)
    assert turn("A", 0, 1000).cpu_seconds_per_1k_tokens is None
    assert turn("A", 0, 0, cpu_seconds=4.0).cpu_seconds_per_1k_tokens is None


def test_naive_batches_are_padded_to_their_longest_row() -> None:
    assert rounds.naive_padding([1, 3, 2, 2, 9], rows=2) == pytest.approx((3 + 3 + 2 + 2) / (1 + 3 + 2 + 2))
