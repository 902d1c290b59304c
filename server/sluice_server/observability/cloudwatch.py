"""CloudWatch: adds up requests on the event loop, samples the engine, and hands each interval to the publisher."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sluice_server.observability.cloudwatch_data import Interval, Sample, totals
from sluice_server.observability.cloudwatch_publisher import CloudWatchPublisher
from sluice_server.observability.observations import Observations

if TYPE_CHECKING:
    from sluice_server.engine import Engine
    from sluice_server.jobs import BatchResult
    from sluice_server.serving import Embedded

_SAMPLES_PER_INTERVAL = 60
_LEAST_SAMPLE_SECONDS = 1.0
_COMPLETED = frozenset({"OK", "200"})
_FAILED = frozenset({"INTERNAL", "UNKNOWN", "500"})


class CloudWatch:
    """A Recorder of requests; everything but close() runs on the event loop and returns at once.

    Args:
        engine: Sampled once a second, more rarely where the interval is long.
        publisher: Takes each interval.
        interval_seconds: From one to the next.
    """

    def __init__(self, engine: "Engine", publisher: CloudWatchPublisher, interval_seconds: float) -> None:
        self.publisher = publisher
        self._engine = engine
        self._interval_seconds = interval_seconds
        self._sample_seconds = max(_LEAST_SAMPLE_SECONDS, interval_seconds / _SAMPLES_PER_INTERVAL)
        self._interval = Interval(totals(engine.counters))
        self._ends_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The first interval begins."""
        self.publisher.start()
        loop = asyncio.get_running_loop()
        self._ends_at = loop.time() + self._interval_seconds
        self._timer = loop.call_later(self._sample_seconds, self._tick)

    def begin(self, api: str) -> None:
        """A request arrived: counted when it ends."""

    def answer(self, embedded: "Embedded") -> None:
        """A request was computed."""
        self._add_times(embedded.tokenize_ms, embedded.queue_ms, embedded.total_ms)

    def end(self, api: str, code: str) -> None:  # noqa: ARG002 - one dimension is enough
        """A request ended; refusals are counted by reason, and a caller's own faults are not the server's health."""
        if code in _COMPLETED:
            self._interval.end_request("completed")
        elif code in _FAILED:
            self._interval.end_request("failed")

    def note(self, told: Observations) -> None:
        """A front end tells of its requests."""
        for tokenize_ms, queue_ms, _, total_ms in told.answers.tolist():
            self._add_times(tokenize_ms, queue_ms, total_ms)
        for (api, code), count in told.ended.items():
            for _ in range(count):
                self.end(api, code)

    def observe_batch(self, result: "BatchResult") -> None:
        """The device is done with a batch."""
        if result.output is not None:
            self._interval.add("encoding_latency_ms", 1000 * result.busy_seconds)
            self._interval.add("batch_size", len(result.output.embeddings))

    def stop(self) -> None:
        """The last interval ends; on the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._hand_over()

    def close(self, within_seconds: float) -> None:
        """Sends what is left; blocks."""
        self.publisher.close(within_seconds)

    def _add_times(self, tokenize_ms: float, queue_ms: float, total_ms: float) -> None:
        interval = self._interval
        interval.add("p95_server_side_latency_ms", total_ms)
        interval.add("queue_wait_ms", queue_ms)
        if tokenize_ms:
            interval.add("tokenize_ms", tokenize_ms)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        facts = self._engine.facts()
        self._interval.samples.append(
            Sample(facts.queued_tokens, facts.pending_batches, facts.drain_ms, facts.rate, facts.busy_fraction)
        )
        if loop.time() >= self._ends_at:
            self._hand_over()
            self._ends_at += self._interval_seconds
        self._timer = loop.call_later(self._sample_seconds, self._tick)

    def _hand_over(self) -> None:
        now = totals(self._engine.counters)
        self.publisher.put(self._interval.data(now), datetime.now(UTC))
        self._interval = Interval(now)
