"""Figures as the tables write them."""

import pytest

from bench import tables
from bench.rounds import Spread
from tests.bench.builders import turn


def test_refusals_and_failures_are_shown_by_their_code() -> None:
    there = [turn("A", 0, 10, codes={"OK": 90, "UNAVAILABLE": 10}), turn("A", 1, 10), turn("B", 0, 10)]
    assert tables.failures(there, "A") == "UNAVAILABLE 5.0%"
    assert tables.failures(there, "B") == "0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (Spread(1234.5, 1000, 2000), "1,234.50 (1,000.00 to 2,000.00)")],
    ids=["unknown", "known"],
)
def test_a_figure_is_shown_with_its_range(value: Spread | None, text: str) -> None:
    assert tables.shown(value, 2) == text
