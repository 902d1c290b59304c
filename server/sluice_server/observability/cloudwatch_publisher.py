"""Sends data to CloudWatch from a thread of its own: whoever hands them over never waits, and what fails is dropped."""

import contextlib
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sluice_server.observability.cloudwatch_data import Datum

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_cloudwatch.type_defs import MetricDatumTypeDef

logger = logging.getLogger(__name__)

# Intervals that may wait while one is being sent.
_QUEUED_INTERVALS = 4
_CONNECT_SECONDS = 3
_READ_SECONDS = 5
_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class _Interval:
    at: datetime
    data: Sequence[Datum]


class CloudWatchPublisher:
    """One thread, one client, one bounded queue.

    Args:
        namespace: Of every metric.
        region: Of the service; AWS_ENDPOINT_URL_CLOUDWATCH names another endpoint, as in every AWS client.
    """

    def __init__(self, namespace: str, region: str) -> None:
        self._namespace = namespace
        self._region = region
        self._queue: queue.Queue[_Interval | None] = queue.Queue(_QUEUED_INTERVALS)
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)
        self._closing = False
        # Each is changed by one thread only: whoever hands over, and the publisher's own.
        self._dropped_when_full = 0
        self._dropped_on_failure = 0
        self._fails = False

    @property
    def dropped_intervals(self) -> int:
        """That never reached CloudWatch."""
        return self._dropped_when_full + self._dropped_on_failure

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, data: Sequence[Datum], at: datetime) -> None:
        """Hands over an interval's data, or drops them where too many intervals wait; returns at once.

        Args:
            data: At most 1,000.
            at: When the interval ended.
        """
        try:
            self._queue.put_nowait(_Interval(at, data))
        except queue.Full:
            self._dropped_when_full += 1

    def close(self, within_seconds: float) -> None:
        """Sends what is queued, as far as the time suffices; blocks."""
        self._closing = True
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        if self._thread.is_alive():
            self._thread.join(within_seconds)

    def _run(self) -> None:
        client: CloudWatchClient | None = None
        while (interval := self._queue.get()) is not None:
            try:
                client = client or self._client()
                client.put_metric_data(
                    Namespace=self._namespace, MetricData=[_as_request(one, interval.at) for one in interval.data]
                )
            except Exception as error:  # noqa: BLE001 - the thread goes on, whatever a client of the network raises
                self._failed(error)
            else:
                self._sent()
            if self._closing and self._queue.empty():
                return

    def _client(self) -> "CloudWatchClient":
        import boto3  # noqa: PLC0415 - an extra: imported only where it is used
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        )
        return boto3.Session().client("cloudwatch", region_name=self._region, config=config)

    def _failed(self, error: Exception) -> None:
        """Counts a drop; the first of a row is logged."""
        self._dropped_on_failure += 1
        if not self._fails:
            logger.warning(
                "CloudWatch does not take the metrics, which are dropped until it does: %s: %s",
                type(error).__name__,
                error,
            )
        self._fails = True

    def _sent(self) -> None:
        if self._fails:
            logger.warning("CloudWatch takes the metrics again; %d intervals were dropped", self.dropped_intervals)
        self._fails = False


def _as_request(datum: Datum, at: datetime) -> "MetricDatumTypeDef":
    return {
        "MetricName": datum.name,
        "Unit": datum.unit,  # type: ignore[typeddict-item] # one of CloudWatch's
        "Timestamp": at,
        "Values": datum.values,
        "Counts": datum.counts,
        "Dimensions": [{"Name": name, "Value": value} for name, value in datum.dimensions.items()],
    }
