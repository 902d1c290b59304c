"""Turns and what they say together. Pure.

A shared machine's speed changes by half within minutes, so figures of different moments cannot be compared: everybody
has a turn in every round, in an order that rotates, and ratios are taken within each round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contestant did in one round.

    Attributes:
        contestant: Its name.
        round: From 0.
        seconds: From the first request until the last answer, or between two moments of a load that goes on.
        requests: That were answered well.
        tokens: Of these, padding excluded.
        codes: How many requests ended with each code.
        latencies_ms: P50, P95 and P99 of the good answers; None where there is no request (a bare engine).
        in_time: Good answers within the deadline; None without one.
        offered: Requests per second that were sent, where that was not left to the answers.
        padding: Positions computed for each token; None where the peer does not say.
        cpu_seconds: Of the contestant; None where it is no process of ours.
        generator_cpu_seconds: Of the load generator.
        rss_mib: Of the contestant, at the end.
    """

    contestant: str
    round: int
    seconds: float
    requests: int
    tokens: int
    codes: Mapping[str, int]
    latencies_ms: tuple[float, float, float] | None = None
    in_time: int | None = None
    offered: float | None = None
    padding: float | None = None
    cpu_seconds: float | None = None
    generator_cpu_seconds: float | None = None
    rss_mib: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Useful ones."""
        return self.tokens / self.seconds

    @property
    def requests_per_second(self) -> float:
        """Answered well."""
        return self.requests / self.seconds

    @property
    def p50_ms(self) -> float | None:
        """None where nothing was answered."""
        return self.latencies_ms[0] if self.latencies_ms else None

    @property
    def p99_ms(self) -> float | None:
        """None where nothing was answered."""
        return self.latencies_ms[2] if self.latencies_ms else None

    @property
    def cpu_seconds_per_1k_tokens(self) -> float | None:
        """None where unknown."""
        return None if self.cpu_seconds is None or not self.tokens else 1000 * self.cpu_seconds / self.tokens

    @property
    def goodput(self) -> float | None:
        """Good answers within the deadline, per second."""
        return None if self.in_time is None else self.in_time / self.seconds


Figure = Callable[[Turn], float | None]


@dataclass(frozen=True, slots=True)
class Spread:
    """Some figures of one kind, of several rounds."""

    median: float
    least: float
    most: float


def order(names: Sequence[str], number: int) -> list[str]:
    """Who comes when in a round: A B C, then B C A, then C A B."""
    start = number % len(names) if names else 0
    return [*names[start:], *names[:start]]


def spread(values: Sequence[float | None]) -> Spread | None:
    """Median and range of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return Spread(float(np.median(known)), min(known), max(known)) if known else None


def of(turns: Sequence[Turn], name: str) -> list[Turn]:
    """One contestant's turns, by round."""
    return sorted((turn for turn in turns if turn.contestant == name), key=lambda turn: turn.round)


def figure(turns: Sequence[Turn], name: str, what: Figure) -> Spread | None:
    """One contestant's figure over the rounds."""
    return spread([what(turn) for turn in of(turns, name)])


def ratio(turns: Sequence[Turn], one: str, other: str, what: Figure) -> Spread | None:
    """How often the other's figure goes into one's, round by round; None where no round has both."""
    others = {turn.round: what(turn) for turn in of(turns, other)}
    found: list[float | None] = []
    for turn in of(turns, one):
        mine, theirs = what(turn), others.get(turn.round)
        if mine is not None and theirs:
            found.append(mine / theirs)
    return spread(found)


def percentiles(values: Sequence[float]) -> tuple[float, float, float] | None:
    """P50, P95 and P99; None of nothing."""
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return float(p50), float(p95), float(p99)


def naive_padding(lengths: Sequence[int], rows: int) -> float:
    """Positions for each token when texts are padded in batches of so many rows, as they come."""
    whole = len(lengths) - len(lengths) % rows
    batches = [lengths[start : start + rows] for start in range(0, whole, rows)]
    return sum(rows * max(batch) for batch in batches) / sum(map(sum, batches))
