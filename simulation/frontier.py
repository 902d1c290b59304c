"""Two policies compared over their tunings: pod-seconds against the share of requests that are late. Pure.

A policy's frontier is what its tunings can do: those that no other tuning of it beats in both, joined by straight
lines, as a service that spends part of its time under each of two tunings would lie between them. That flatters the
peers, whose tunings were made for the comparison, and is asked of Sluice with its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """What one tuning cost and gave."""

    pods: float
    """On average."""
    late: float
    """Share of requests refused for good or answered after the objective."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One point against a frontier; None where no tuning of the other reaches as far."""

    pods_at_same_share: float | None
    """Pods that the other needs for as few late requests."""
    late_at_same_pods: float | None
    """Late share of the other at as many pods."""
    wins: bool
    """Fewer pods at the same share, or a higher share at the same number of pods."""


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats, the cheapest first."""
    kept: list[Point] = []
    for point in sorted(points):
        if not kept or point.late < kept[-1].late:
            kept.append(point)
    return kept


def compare(ours: Point, theirs: Iterable[Point]) -> Comparison:
    """Our point against all that they can do."""
    line = frontier(theirs)
    pods, late = _pods_at(line, ours.late), _late_at(line, ours.pods)
    return Comparison(pods, late, wins=pods is None or late is None or late > ours.late or pods > ours.pods)


def _pods_at(line: Sequence[Point], late: float) -> float | None:
    if not line or line[-1].late > late:
        return None
    if line[0].late <= late:
        return line[0].pods
    left, right = next((a, b) for a, b in pairwise(line) if a.late > late >= b.late)
    return left.pods + (right.pods - left.pods) * (left.late - late) / (left.late - right.late)


def _late_at(line: Sequence[Point], pods: float) -> float | None:
    if not line or line[0].pods > pods:
        return None
    if line[-1].pods <= pods:
        return line[-1].late
    left, right = next((a, b) for a, b in pairwise(line) if a.pods <= pods < b.pods)
    return left.late + (right.late - left.late) * (pods - left.pods) / (right.pods - left.pods)
