"""Prometheus metrics: units in the names, few labels. server/METRICS.md says what each is for."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice_server.engine import Engine
from sluice_server.health import Facts
from sluice_server.observability.observations import Observations
from sluice_server.observability.scope import APIS, OPENAI

if TYPE_CHECKING:
    from sluice_server.jobs import BatchResult
    from sluice_server.observability.cloudwatch_publisher import CloudWatchPublisher
    from sluice_server.serving import Embedded

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# There from the start, as rates are blind to the first increment of a series that was not there.
_NO_REQUESTS = {(api.label, "200" if api is OPENAI else "OK"): 0 for api in APIS}
_REASONS = ("drain_limit", "token_limit", "latency", "deadline", "draining", "not_ready", "failed", "front_end")
# In the text format each would be a gauge of its own that answers nothing.
disable_created_metrics()  # type: ignore[no-untyped-call]


class LivesAndDeaths(Protocol):
    """Of front ends."""

    @property
    def listening(self) -> int:
        """How many serve now."""

    @property
    def died(self) -> int:
        """How many have, since the server's start."""


class Metrics:
    """One server's metrics; a Recorder of its requests.

    Args:
        engine: Read at each scrape.
        cloudwatch: Whose drops are counted; None where it is off.
    """

    def __init__(self, engine: Engine, cloudwatch: "CloudWatchPublisher | None" = None) -> None:
        self.registry = CollectorRegistry()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.failed_batches = 0
        self.registry.register(_EngineCollector(engine))
        self.registry.register(_RequestCollector(self))
        if cloudwatch is not None:
            self.registry.register(_CloudWatchCollector(cloudwatch))
        ProcessCollector(registry=self.registry)
        self.tokenize_seconds = self._histogram("tokenize_seconds", "Turning a request's texts into tokens", _SECONDS)
        self.queue_seconds = self._histogram("queue_seconds", "From admission until the device began", _SECONDS)
        self.compute_seconds = self._histogram("compute_seconds", "Device time of a request's batches", _SECONDS)
        self.request_seconds = self._histogram("request_seconds", "A request from its arrival to its answer", _SECONDS)
        self.batch_seconds = self._histogram("batch_seconds", "Device time of a batch", _SECONDS)
        self.batch_rows = self._histogram("batch_rows", "Inputs in a batch", _ROWS)
        self.batch_tokens = self._histogram("batch_tokens", "Tokens in a batch, padding included", _TOKENS)

    def tell_of(self, front_ends: LivesAndDeaths) -> None:
        """There are some."""
        self.registry.register(_FrontEndCollector(front_ends))

    def begin(self, api: str) -> None:
        """A request arrived."""
        self.in_flight[api] += 1

    def answer(self, embedded: "Embedded") -> None:
        """A request was computed."""
        self._observe_times(embedded.tokenize_ms, embedded.queue_ms, embedded.compute_ms, embedded.total_ms)

    def end(self, api: str, code: str) -> None:
        """A request ended, however it did."""
        self.in_flight[api] -= 1
        self.requests[api, code] += 1

    def note(self, told: Observations) -> None:
        """A front end tells of its requests."""
        self.in_flight.update(told.began)
        self.requests.update(told.ended)
        for (api, _), count in told.ended.items():
            self.in_flight[api] -= count
        for times_ms in told.answers.tolist():
            self._observe_times(*times_ms)

    def observe_batch(self, result: "BatchResult") -> None:
        """The device is done with a batch."""
        if result.output is None:
            self.failed_batches += 1
            return
        self.batch_seconds.observe(result.busy_seconds)
        self.batch_rows.observe(len(result.output.embeddings))
        self.batch_tokens.observe(result.output.computed_tokens)

    def exposition(self) -> bytes:
        """The text format of a scrape."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"sluice_{name}", text, buckets=buckets, registry=self.registry)

    def _observe_times(self, tokenize_ms: float, queue_ms: float, compute_ms: float, total_ms: float) -> None:
        if tokenize_ms:
            self.tokenize_seconds.observe(tokenize_ms / 1000)
        self.queue_seconds.observe(queue_ms / 1000)
        self.compute_seconds.observe(compute_ms / 1000)
        self.request_seconds.observe(total_ms / 1000)


class _RequestCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "sluice_requests", "Requests that ended, by their gRPC or HTTP code", labels=["api", "code"]
        )
        in_flight = GaugeMetricFamily("sluice_requests_in_flight", "Requests being served", labels=["api"])
        for api in APIS:
            in_flight.add_metric([api.label], self._metrics.in_flight[api.label])
        for labels, count in sorted((_NO_REQUESTS | self._metrics.requests).items()):
            requests.add_metric(labels, count)
        yield requests
        yield in_flight
        yield CounterMetricFamily(
            "sluice_failed_batches", "Batches that the device failed on", self._metrics.failed_batches
        )


class _CloudWatchCollector(Collector):
    def __init__(self, publisher: "CloudWatchPublisher") -> None:
        self._publisher = publisher

    def collect(self) -> Iterator[Metric]:
        dropped = self._publisher.dropped_intervals
        yield CounterMetricFamily("sluice_cloudwatch_dropped_intervals", "Intervals that never reached it", dropped)


class _FrontEndCollector(Collector):
    def __init__(self, front_ends: LivesAndDeaths) -> None:
        self._front_ends = front_ends

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("sluice_front_ends", "Processes that listen for callers", self._front_ends.listening)
        yield CounterMetricFamily("sluice_front_end_deaths", "Front ends that died", self._front_ends.died)


class _EngineCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        facts = self._engine.facts()
        yield _build(facts)
        yield from _tokens(facts)
        yield from _rejected(facts)
        yield GaugeMetricFamily("sluice_queued_tokens", "Admitted and not yet computed", facts.queued_tokens)
        yield GaugeMetricFamily("sluice_pending_batches", "Batches at the device", facts.pending_batches)
        yield GaugeMetricFamily("sluice_serving", "1 while the server serves", facts.phase.name == "serving")
        # Unknown is absent, never 0.
        for name, text, gauge in (
            ("estimated_drain_seconds", "Until all that is queued is computed", _seconds(facts.drain_ms)),
            ("drain_limit_seconds", "Above it requests are refused", _seconds(facts.max_drain_ms)),
            ("service_rate_tokens_per_second", "While the device is busy", facts.rate),
            (
                "accept_wait_seconds",
                "Calls that came and were not looked at yet",
                _seconds(facts.accept_wait_ms),
            ),
            ("p95_latency_seconds", "Server-side, over the window", _seconds(facts.p95_ms)),
            ("busy_ratio", "Device busy share of the last 10 s", facts.busy_fraction),
            ("padding_waste_ratio", "Share of all computed tokens that was padding", facts.counters.padding_waste),
        ):
            if gauge is not None:
                yield GaugeMetricFamily(f"sluice_{name}", text, gauge)


def _build(facts: Facts) -> Metric:
    """What runs here; the model's own are empty until it is loaded."""
    info = facts.info
    return InfoMetricFamily(
        "sluice_build",
        "What runs here",
        {
            "version": facts.version,
            "model": facts.model_uri,
            "revision": (info.revision or "") if info else "",
            "dtype": info.dtype if info else "",
            "device": info.device if info else "",
            "layout": info.layout if info else "",
        },
    )


def _tokens(facts: Facts) -> Iterator[Metric]:
    counters = facts.counters
    for name, text, value in (
        ("offered", "Tokens asked for the first time", counters.offered_tokens),
        ("repeated", "Tokens asked for again after a refusal, by callers that say so", counters.repeated_tokens),
        ("admitted", "Tokens taken in", counters.admitted_tokens),
        ("expired", "Admitted tokens dropped because nobody waited any more", counters.expired_tokens),
        ("computed", "Tokens computed, padding excluded", counters.computed_tokens),
        ("padded", "Tokens computed as padding only", counters.padded_tokens),
    ):
        yield CounterMetricFamily(f"sluice_{name}_tokens", text, value)


def _rejected(facts: Facts) -> Iterator[Metric]:
    for unit, counts in (
        ("tokens", facts.counters.rejected_tokens),
        ("requests", facts.counters.rejected_requests),
    ):
        yield _by_reason(f"sluice_rejected_{unit}", f"{unit.capitalize()} refused", counts)


def _by_reason(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["reason"])
    for reason in dict.fromkeys((*_REASONS, *counts)):
        family.add_metric([reason], counts.get(reason, 0))
    return family


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
