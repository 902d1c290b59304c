"""Prometheus metrics: units in the names, few labels. Totals and gauges are read from the engine at each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sluice_server.engine import Engine
from sluice_server.serving import Embedded

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """One server's metrics.

    Args:
        engine: Read at each scrape.
    """

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine))
        self.queue_seconds = Histogram(
            "sluice_queue_seconds",
            "From admission until the device began",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.compute_seconds = Histogram(
            "sluice_compute_seconds",
            "Device time of the batches of a request",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "sluice_request_seconds",
            "A request from its arrival to its answer",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def observe(self, embedded: Embedded) -> None:
        """One request was answered."""
        self.queue_seconds.observe(embedded.queue_ms / 1000)
        self.compute_seconds.observe(embedded.compute_ms / 1000)
        self.request_seconds.observe(embedded.total_ms / 1000)

    def exposition(self) -> bytes:
        """The text format of a scrape."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        facts = self._engine.facts()
        counters = facts.counters
        for name, text, value in (
            ("offered", "Tokens asked for", counters.offered_tokens),
            ("admitted", "Tokens taken in", counters.admitted_tokens),
            ("expired", "Admitted tokens dropped because nobody waited any more", counters.expired_tokens),
            ("computed", "Tokens computed, padding excluded", counters.computed_tokens),
            ("padded", "Tokens computed as padding only", counters.padded_tokens),
        ):
            yield CounterMetricFamily(f"sluice_{name}_tokens", text, value)
        rejected = CounterMetricFamily("sluice_rejected_tokens", "Tokens refused", labels=["reason"])
        for reason, tokens in counters.rejected_tokens.items():
            rejected.add_metric([reason], tokens)
        yield rejected
        yield GaugeMetricFamily("sluice_queued_tokens", "Admitted and not yet computed", facts.queued_tokens)
        yield GaugeMetricFamily("sluice_pending_batches", "Batches at the device", facts.pending_batches)
        yield GaugeMetricFamily("sluice_serving", "1 while the server serves", facts.phase.name == "serving")
        # Unknown is absent, never 0.
        for name, text, gauge in (
            (
                "sluice_estimated_drain_seconds",
                "Until all that is queued is computed",
                _seconds(facts.drain_ms),
            ),
            ("sluice_service_rate_tokens_per_second", "While the device is busy", facts.rate),
            ("sluice_p95_latency_seconds", "Server-side, over the window", _seconds(facts.p95_ms)),
            ("sluice_busy_ratio", "Device busy share of the last 10 s", facts.busy_fraction),
        ):
            if gauge is not None:
                yield GaugeMetricFamily(name, text, gauge)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
