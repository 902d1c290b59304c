"""Everything by which the server is seen from outside, made from the settings and closed as one."""

import asyncio
import os
from typing import TYPE_CHECKING

from sluice_server.metrics import Metrics
from sluice_server.observability import tracing
from sluice_server.observability.cloudwatch import CloudWatch
from sluice_server.observability.cloudwatch_publisher import CloudWatchPublisher
from sluice_server.observability.observer import Recorder, RequestObserver

if TYPE_CHECKING:
    from sluice_server.engine import Engine
    from sluice_server.jobs import BatchResult
    from sluice_server.settings import Settings

# A collector or a service that does not answer delays the end of the process by so much at most.
_CLOSE_WITHIN_SECONDS = 3.0


class Telemetry:
    """Prometheus always; CloudWatch where METRICS_ENABLED says so; traces where OTEL_* name an endpoint.

    Args:
        engine: What is told of.
        settings: Of CloudWatch.
    """

    def __init__(self, engine: "Engine", settings: "Settings") -> None:
        self.cloudwatch = _cloudwatch(engine, settings)
        self.metrics = Metrics(engine, self.cloudwatch.publisher if self.cloudwatch else None)
        recorders: list[Recorder] = [self.metrics, *([self.cloudwatch] if self.cloudwatch else [])]
        self.observer = RequestObserver(engine.counters, recorders, tracing.configure(os.environ))

    def start(self) -> None:
        """On the event loop."""
        if self.cloudwatch is not None:
            self.cloudwatch.start()

    def observe_batch(self, result: "BatchResult") -> None:
        """The device is done with a batch; on the event loop."""
        self.metrics.observe_batch(result)
        if self.cloudwatch is not None:
            self.cloudwatch.observe_batch(result)

    async def stop(self) -> None:
        """After the last request: sends what is left, within a bound."""
        self.observer.stop()
        closing = [asyncio.to_thread(self.observer.close, _CLOSE_WITHIN_SECONDS)]
        if self.cloudwatch is not None:
            self.cloudwatch.stop()
            closing.append(asyncio.to_thread(self.cloudwatch.close, _CLOSE_WITHIN_SECONDS))
        await asyncio.gather(*closing)


def _cloudwatch(engine: "Engine", settings: "Settings") -> CloudWatch | None:
    if not settings.metrics_enabled:
        return None
    assert settings.metrics_region is not None, "the settings are checked"
    publisher = CloudWatchPublisher(settings.metrics_namespace, settings.metrics_region)
    return CloudWatch(engine, publisher, settings.metrics_interval_seconds)
