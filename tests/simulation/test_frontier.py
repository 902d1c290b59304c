"""Points against frontiers, as tables."""

import pytest

from simulation.frontier import Point, compare, frontier

THEIRS = [Point(10, 0.04), Point(14, 0.02), Point(13, 0.05), Point(20, 0.01), Point(21, 0.01)]


def test_a_frontier_is_what_nothing_beats() -> None:
    assert frontier(THEIRS) == [Point(10, 0.04), Point(14, 0.02), Point(20, 0.01)]


@pytest.mark.parametrize(
    ("ours", "pods", "late", "wins"),
    [
        (Point(11, 0.03), 12, 0.035, True),
        (Point(12, 0.03), 12, 0.03, False),
        (Point(15, 0.03), 12, pytest.approx(0.02 - 0.01 / 6), False),
        (Point(30, 0.001), None, 0.01, True),
        (Point(30, 0.02), 14, 0.01, False),
        (Point(9, 0.5), 10, None, True),
    ],
    ids=["better", "on the line", "worse", "in time as nobody else", "dear", "cheap as nobody else"],
)
def test_a_point_is_compared_at_the_same_share_and_at_the_same_cost(
    ours: Point, pods: float | None, late: float | None, wins: bool
) -> None:
    seen = compare(ours, THEIRS)
    assert (seen.pods_at_same_share, seen.late_at_same_pods, seen.wins) == (pods, late, wins)


def test_nobody_is_beaten_by_nobody() -> None:
    assert compare(Point(1, 0), []).wins
