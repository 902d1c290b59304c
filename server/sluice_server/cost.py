"""How long work takes on this device: learned from warm-up, corrected by every batch. Pure: no clock of its own."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from sluice_server.fixed_cost import MOST_SHARE, FixedCost

# Busy time after which an old observation has lost 63 % of its weight.
_MEMORY_SECONDS = 5.0
# The same for what surrounds the device: load on the machine's cores comes and goes quickly.
_CORRECTION_MEMORY_SECONDS = 0.5
# Warm-up counts as so much busy time: real traffic soon outweighs it.
_SEED_SECONDS = 1.0
# A batch's time for its tokens is at least so many times its time for itself.
_LEAST_VARIABLE_SHARE = 3.0


Method = TypeVar("Method", bound=Callable[..., Any])


def _until_it_learns(method: Method) -> Method:
    """Remembers what a method of the model gave: admission asks for the same hundreds of times between two batches."""

    @functools.wraps(method)
    def remembering(self: "CostModel", *arguments: object) -> object:
        key = (method, *arguments)
        if key not in self._remembered:
            self._remembered[key] = method(self, *arguments)
        return self._remembered[key]

    return cast("Method", remembering)


@dataclass(slots=True)
class _DecayedRatio:
    """Σ amounts / Σ weights, both decayed over busy time: idle time never dilutes it."""

    amounts: float
    weights: float

    def observe(
        self, amount: float, weight: float, busy_seconds: float, memory_seconds: float = _MEMORY_SECONDS
    ) -> None:
        decay = math.exp(-busy_seconds / memory_seconds)
        self.amounts = self.amounts * decay + amount
        self.weights = self.weights * decay + weight

    @property
    def value(self) -> float:
        return self.amounts / self.weights


@dataclass(frozen=True, slots=True)
class Measurement:
    """One batch of warm-up: so many useful tokens of one bucket took so long."""

    bucket: int
    tokens: int
    seconds: float


@dataclass(slots=True)
class CostModel:
    """time(batch) = correction x (fixed + Σ over buckets tokens / rate(bucket)) + hand-over.

    The rates are the device's own and change slowly. The correction is by how much it is slower now, as where host and
    device share cores. The hand-over is what callers live through beside the device, between threads and until
    delivery: so much for a batch, however long it is. As a share of small batches, it made long ones look slow.

    A small batch of quiet traffic is mostly fixed cost; taking that out of its time keeps the rates true
    for the full batches of a burst.

    Attributes:
        boundaries: Of the buckets.
        changes: How often it learned something.
    """

    boundaries: Sequence[int]
    changes: int = 0
    _fixed: FixedCost = field(default_factory=FixedCost)
    _correction: _DecayedRatio = field(default_factory=lambda: _DecayedRatio(_SEED_SECONDS, _SEED_SECONDS))
    _hand_over: _DecayedRatio = field(default_factory=lambda: _DecayedRatio(0.0, 1.0))
    _rates: dict[int, _DecayedRatio] = field(default_factory=dict)
    # What follows from these.
    _standing_in: dict[int, list[int]] = field(default_factory=dict)
    _seconds_per_token: dict[int, float] = field(default_factory=dict)
    # As the warm-up left it: a measure of a batch's length that does not move with what is learned.
    _warm_seconds_per_token: dict[int, float] = field(default_factory=dict)
    _remembered: dict[tuple[object, ...], Any] = field(default_factory=dict)
    _tokens_per_second: float = 0.0
    _slowness: float = 1.0
    _hand_over_seconds: float = 0.0

    def seed(self, measurements: Sequence[Measurement]) -> None:
        """Takes warm-up's timings, so that the estimate is right from the first request."""
        by_bucket = {b: [m for m in measurements if m.bucket == b] for b in self.boundaries}
        self._fixed = FixedCost(_fixed_seconds([timings for timings in by_bucket.values() if len(timings) > 1]))
        for bucket, timings in by_bucket.items():
            if timings:
                largest = max(timings, key=lambda m: m.tokens)
                rate = largest.tokens / self._variable(largest.seconds)
                self._rates[bucket] = _DecayedRatio(rate * _SEED_SECONDS, _SEED_SECONDS)
        self._conclude()
        self._warm_seconds_per_token = dict(self._seconds_per_token)

    def observe(
        self, tokens_by_bucket: Mapping[int, int], busy_seconds: float, lived_seconds: float | None = None
    ) -> None:
        """Learns from one computed batch; its time is shared out as the rates so far foresee it.

        Args:
            tokens_by_bucket: Of its rows.
            busy_seconds: Device time.
            lived_seconds: From one answer of a busy device to the next, device time included; None is unknown.
        """
        if busy_seconds <= 0 or not any(tokens_by_bucket.values()):
            return
        uncorrected = self._uncorrected(tokens_by_bucket)
        if lived_seconds is not None and uncorrected:
            self._correction.observe(busy_seconds, uncorrected, uncorrected, _CORRECTION_MEMORY_SECONDS)
            self._hand_over.observe(lived_seconds - busy_seconds, 1.0, uncorrected, _CORRECTION_MEMORY_SECONDS)
        foreseen = {bucket: self._tokens_seconds(tokens, bucket) or 0.0 for bucket, tokens in tokens_by_bucket.items()}
        total = sum(foreseen.values())
        if self._warm_seconds_per_token:
            warm = sum(tokens * self._warm_seconds_per_token[bucket] for bucket, tokens in tokens_by_bucket.items())
            self._fixed.observe(warm, busy_seconds)
        variable = self._variable(busy_seconds)
        for bucket, tokens in tokens_by_bucket.items():
            share = variable * (foreseen[bucket] / total if total else tokens / sum(tokens_by_bucket.values()))
            if bucket in self._rates:
                self._rates[bucket].observe(tokens, share, share)
            else:
                self._rates[bucket] = _DecayedRatio(tokens, share)
        self._conclude()

    @property
    def fixed_seconds(self) -> float:
        """What a batch costs the device beside its tokens, were it as fast as usual."""
        return self._fixed.seconds

    def seconds(self, tokens: int, bucket: int) -> float | None:
        """Time of so many tokens of a bucket beside the fixed cost; None before anything was measured."""
        seconds = self._tokens_seconds(tokens, bucket)
        return None if seconds is None else seconds * self._slowness

    def batch_seconds(self, tokens_by_bucket: Mapping[int, int]) -> float | None:
        """Time of one batch; None before anything was measured."""
        seconds = self._uncorrected(tokens_by_bucket)
        return None if seconds is None else self._lived(seconds)

    @property
    def seconds_per_batch(self) -> float:
        """What every batch costs, however small."""
        return self._lived(self.fixed_seconds)

    @_until_it_learns
    def tokens_within(self, seconds: float, bucket: int, least_share: float = _LEAST_VARIABLE_SHARE, /) -> int:
        """Tokens of a bucket that one batch computes in the time; without a measurement, one row of it.

        Args:
            seconds: That it may take.
            bucket: Of its tokens.
            least_share: Its tokens take at least so many times what the batch costs beside them, whatever the time.
        """
        if not self._rates:
            return bucket
        return round(self._variable_part(seconds, least_share) / self._seconds_per_token[bucket])

    @_until_it_learns
    def full_batch_rate(self, target_seconds: float) -> float | None:
        """Tokens per second of busy time in batches that take so long, over the buckets as they were used.

        None before anything was measured.
        """
        if not self._rates:
            return None
        variable = self._variable_part(target_seconds)
        return self._tokens_per_second * variable / self._lived(variable + self.fixed_seconds)

    @_until_it_learns
    def full_batch_seconds(self, target_seconds: float) -> float:
        """How long a batch takes that is made to take so long: longer where its fixed part is large."""
        return self._lived(self._variable_part(target_seconds) + self.fixed_seconds)

    def _variable_part(self, target_seconds: float, least_share: float = _LEAST_VARIABLE_SHARE) -> float:
        """Of a batch that takes as long as is wished, or longer where its fixed part is large."""
        return max(target_seconds - self.fixed_seconds, self.fixed_seconds * least_share)

    def _lived(self, device_seconds: float) -> float:
        """What callers live through of a batch that takes the device so long, were it as fast as usual."""
        return device_seconds * self._slowness + self._hand_over_seconds

    def _uncorrected(self, tokens_by_bucket: Mapping[int, int]) -> float | None:
        if not self._rates:
            return None
        return self.fixed_seconds + sum(self._tokens_seconds(t, b) or 0.0 for b, t in tokens_by_bucket.items())

    def _tokens_seconds(self, tokens: int, bucket: int) -> float | None:
        return tokens * self._seconds_per_token[bucket] if self._rates else None

    def _conclude(self) -> None:
        """A bucket that was not measured is as fast as the nearest one that was."""
        self.changes += 1
        self._remembered.clear()
        self._slowness, self._hand_over_seconds = self._correction.value, max(0.0, self._hand_over.value)
        if len(self._standing_in) != len(self._rates):
            self._standing_in = {known: [] for known in self._rates}
            for bucket in self.boundaries:
                self._standing_in[min(self._rates, key=lambda known: abs(known - bucket))].append(bucket)
        tokens = seconds = 0.0
        for known, rate in self._rates.items():
            tokens, seconds = tokens + rate.amounts, seconds + rate.weights
            for bucket in self._standing_in[known]:
                self._seconds_per_token[bucket] = rate.weights / rate.amounts
        self._tokens_per_second = tokens / seconds if seconds else 0.0

    def _variable(self, seconds: float) -> float:
        """A batch's time without its fixed part; a little of it is never taken for fixed."""
        return max(seconds - self.fixed_seconds, seconds * (1 - MOST_SHARE))


def _fixed_seconds(pairs: Sequence[Sequence[Measurement]]) -> float:
    """Where the line through the smallest and the largest batch of a bucket meets zero tokens; the median counts."""
    crossings = []
    for timings in pairs:
        small, large = min(timings, key=lambda m: m.tokens), max(timings, key=lambda m: m.tokens)
        if large.tokens > small.tokens:
            slope = (large.seconds - small.seconds) / (large.tokens - small.tokens)
            crossings.append(min(max(0.0, small.seconds - slope * small.tokens), small.seconds))
    return sorted(crossings)[len(crossings) // 2] if crossings else 0.0
