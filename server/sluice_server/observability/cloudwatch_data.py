"""What one interval publishes to CloudWatch, gathered in bounded memory. Pure: no clock, no client.

Names and units are those of the seed system, coral-gpu-inference 0.1.0, where it has the metric, else /health's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sluice_server.counters import Counters

# PutMetricData takes 150 different values a metric: steps of 10 % span this range in fewer.
_STEP = math.log(1.104)
_LEAST, _MOST = 0.1, 200_000.0
_TOKENS = ("offered", "repeated", "admitted", "expired", "computed", "padded")


@dataclass(frozen=True, slots=True)
class Datum:
    """One metric of one interval.

    Attributes:
        name: Of the metric.
        unit: One of CloudWatch's.
        values: Different ones, at most 150.
        counts: How often each of them came.
        dimensions: By name.
    """

    name: str
    unit: str
    values: Sequence[float]
    counts: Sequence[int]
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Distribution:
    """Counts of values, so that CloudWatch can compute percentiles: their error is below 11 %, sums are exact."""

    _bins: dict[int, tuple[int, float]] = field(default_factory=dict)

    def add(self, value: float) -> None:
        """Notes one value; none is below zero."""
        place = round(math.log(min(max(value, _LEAST), _MOST)) / _STEP)
        count, total = self._bins.get(place, (0, 0.0))
        self._bins[place] = (count + 1, total + value)

    def datum(self, name: str, unit: str) -> Datum | None:
        """None where nothing was noted: unknown is absent, never 0."""
        if not self._bins:
            return None
        bins = [self._bins[place] for place in sorted(self._bins)]
        return Datum(name, unit, [total / count for count, total in bins], [count for count, _ in bins])


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one moment; None is unknown."""

    queued_tokens: int
    gpu_queue_depth: int
    estimated_drain_time_ms: float | None
    service_rate_tokens_per_sec: float | None
    busy_fraction: float | None


_SAMPLE_UNITS = {
    "queued_tokens": "Count",
    "gpu_queue_depth": "Count",
    "estimated_drain_time_ms": "Milliseconds",
    "service_rate_tokens_per_sec": "Count/Second",
    "busy_fraction": "None",
}
_DISTRIBUTION_UNITS = {
    "p95_server_side_latency_ms": "Milliseconds",
    "queue_wait_ms": "Milliseconds",
    "encoding_latency_ms": "Milliseconds",
    "tokenize_ms": "Milliseconds",
    "batch_size": "Count",
}


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters at one moment, to tell later what was added since."""

    tokens: Mapping[str, int]
    rejected_tokens: int
    rejected_requests: Mapping[str, int]


def totals(counters: Counters) -> Totals:
    """A copy of what counts."""
    tokens = {kind: getattr(counters, f"{kind}_tokens") for kind in _TOKENS}
    return Totals(tokens, counters.rejected_tokens_total, dict(counters.rejected_requests))


@dataclass(slots=True)
class Interval:
    """Gathers until its data are taken.

    Args:
        since: The counters when it began.
    """

    since: Totals
    requests: dict[str, int] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    distributions: dict[str, Distribution] = field(
        default_factory=lambda: {name: Distribution() for name in _DISTRIBUTION_UNITS}
    )

    def add(self, name: str, value: float) -> None:
        """Notes a value of one of the distributions."""
        self.distributions[name].add(value)

    def end_request(self, status: str) -> None:
        """Counts a request."""
        self.requests[status] = self.requests.get(status, 0) + 1

    def data(self, now: Totals) -> list[Datum]:
        """Everything that is known of the interval, which ends with these counters."""
        return [
            *_ones("infer_request_count", "status", self.requests),
            *_ones("admission_rejections", "reason", _added(self.since.rejected_requests, now.rejected_requests)),
            *(_total(f"{kind}_tokens", count - self.since.tokens[kind]) for kind, count in now.tokens.items()),
            _total("rejected_tokens", now.rejected_tokens - self.since.rejected_tokens),
            *(
                datum
                for name, one in self.distributions.items()
                if (datum := one.datum(name, _DISTRIBUTION_UNITS[name])) is not None
            ),
            *_gauges(self.samples),
        ]


def _added(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {key: count - before.get(key, 0) for key, count in now.items() if count > before.get(key, 0)}


def _ones(name: str, dimension: str, counts: Mapping[str, int]) -> list[Datum]:
    """As many ones, so that Sum and SampleCount both say how many."""
    return [Datum(name, "Count", [1.0], [count], {dimension: said}) for said, count in sorted(counts.items())]


def _total(name: str, total: int) -> Datum:
    return Datum(name, "Count", [float(total)], [1])


def _gauges(samples: Sequence[Sample]) -> list[Datum]:
    data = []
    for name, unit in _SAMPLE_UNITS.items():
        known = [float(value) for one in samples if (value := getattr(one, name)) is not None]
        if known:
            data.append(Datum(name, unit, known, [1] * len(known)))
    return data
