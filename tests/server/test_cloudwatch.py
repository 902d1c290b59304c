"""CloudWatch, with the real client against a service on this machine: what arrives, and what a broken one does not do."""

import gzip
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sluice_server import settings as settings_module
from sluice_server.counters import Counters
from sluice_server.observability import cloudwatch_publisher
from sluice_server.observability.cloudwatch_data import Datum, Distribution, Interval, Sample, totals
from sluice_server.observability.cloudwatch_publisher import CloudWatchPublisher
from sluice_server.settings import Settings, describe

from tests.server.conftest import RunningServer, running_server
from tests.server.test_apis import get
from tests.server.test_metrics import METRICS_MD, scraped, value

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ONE = [Datum("queued_tokens", "Count", [1.0], [1])]


# --- an interval's data, pure ---------------------------------------------------------------------


def by_name(data: list[Datum]) -> dict[str, Datum]:
    return {"/".join((one.name, *one.dimensions.values())): one for one in data}


@given(st.lists(st.floats(min_value=0, max_value=2e5), min_size=1, max_size=400))
def test_a_distribution_keeps_count_and_sum_and_each_value_within_eleven_percent(values: list[float]) -> None:
    distribution = Distribution()
    for one in values:
        distribution.add(one)
    datum = distribution.datum("queue_wait_ms", "Milliseconds")
    assert datum is not None
    assert sum(datum.counts) == len(values)
    total = sum(value * count for value, count in zip(datum.values, datum.counts, strict=True))
    assert math.isclose(total, sum(values), rel_tol=1e-9, abs_tol=1e-9)
    said = [value for value, count in zip(datum.values, datum.counts, strict=True) for _ in range(count)]
    for given_, told in zip(sorted(values), said, strict=True):
        assert abs(told - given_) <= max(0.11 * given_, 0.106)


def test_a_distribution_never_has_more_values_than_a_request_may_hold() -> None:
    distribution = Distribution()
    for place in range(4000):
        distribution.add(10 ** (-3 + place / 400))
    datum = distribution.datum("queue_wait_ms", "Milliseconds")
    assert datum is not None
    assert len(datum.values) == len(datum.counts) <= 150


def test_an_interval_tells_what_was_added_since_the_last() -> None:
    counters = Counters(offered_tokens=100, admitted_tokens=90, computed_tokens=80)
    counters.reject("drain_limit", 10)
    interval = Interval(totals(counters))
    counters.offered_tokens += 30
    counters.computed_tokens += 7
    counters.reject("drain_limit", 5)
    counters.reject("drain_limit", 6)
    counters.reject("deadline", 1)
    interval.end_request("completed")
    interval.end_request("completed")
    data = by_name(interval.data(totals(counters)))
    assert (data["infer_request_count/completed"].values, data["infer_request_count/completed"].counts) == ([1.0], [2])
    assert data["admission_rejections/drain_limit"].counts == [2]
    assert data["admission_rejections/deadline"].counts == [1]
    said = {
        name: data[name].values for name in ("offered_tokens", "computed_tokens", "rejected_tokens", "padded_tokens")
    }
    assert said == {
        "offered_tokens": [30.0], "computed_tokens": [7.0], "rejected_tokens": [12.0], "padded_tokens": [0.0],
    }  # fmt: skip


def test_what_is_unknown_is_absent() -> None:
    counters = totals(Counters())
    interval = Interval(counters)
    interval.samples.append(Sample(5, 0, None, None, 0.5))
    data = by_name(interval.data(counters))
    assert data["queued_tokens"].values == [5.0]
    assert data["busy_fraction"].values == [0.5]
    absent = {"estimated_drain_time_ms", "service_rate_tokens_per_sec", "queue_wait_ms", "infer_request_count"}
    assert not absent & set(data)


def test_the_fullest_interval_fits_one_request() -> None:
    counters = Counters()
    interval = Interval(totals(counters))
    for name in interval.distributions:
        for place in range(2000):
            interval.add(name, 10 ** (-3 + place / 200))
    interval.samples.extend([Sample(131072, 2, 1234.567, 98765.4321, 0.987654)] * 61)
    for reason in range(20):
        counters.reject(f"reason_{reason}", 1)
    data = interval.data(totals(counters))
    assert len(data) <= 1000
    assert all(len(one.values) <= 150 for one in data)
    assert len(json.dumps([[one.name, one.unit, one.values, one.counts] for one in data])) < 1_000_000


def test_every_metric_is_documented() -> None:
    counters = Counters()
    interval = Interval(totals(counters))
    counters.reject("drain_limit", 1)
    interval.end_request("completed")
    interval.samples.append(Sample(1, 1, 1.0, 1.0, 1.0))
    for name in interval.distributions:
        interval.add(name, 1.0)
    section = METRICS_MD.read_text().split("## CloudWatch")[1].split("## Traces")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert {one.name for one in interval.data(totals(counters))} == set(re.findall(r"`(\w+)`", " ".join(rows)))


# --- the service ------------------------------------------------------------------------------------


class Service:
    """PutMetricData, as the client speaks it (AWS JSON 1.0); answers, fails or hangs as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.arrived = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.status = 200
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.arrived.release()
                assert service.may_answer.wait(60)
                service.requests.append((dict(self.headers), body))
                answer = b"{}" if service.status == 200 else b'{"__type": "InternalFailure"}'
                self.send_response(service.status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    """A client that no longer waits has gone."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def taken(self) -> list[dict[str, Any]]:
        """The input of each call so far."""
        return [_input(*one) for one in self.requests]

    def wait_for_data(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first datum that is wanted, in whatever request it comes."""
        while True:
            assert self.arrived.acquire(timeout=30)
            for request in self.taken():
                for datum in request["MetricData"]:
                    if wanted(datum):
                        return datum

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def _input(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    assert headers["X-Amz-Target"].endswith(".PutMetricData")
    assert "/eu-west-1/monitoring/aws4_request" in headers["Authorization"], "signed for its region"
    whole: dict[str, Any] = json.loads(gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body)
    return whole


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    running = Service()
    for name, said in (
        ("AWS_ENDPOINT_URL_CLOUDWATCH", running.endpoint), ("AWS_ACCESS_KEY_ID", "an-id"),
        ("AWS_SECRET_ACCESS_KEY", "a-secret"), ("AWS_EC2_METADATA_DISABLED", "true"),
    ):  # fmt: skip
        monkeypatch.setenv(name, said)
    yield running
    running.close()


@pytest.fixture
def publisher(service: Service) -> Iterator[CloudWatchPublisher]:
    made = CloudWatchPublisher("Sluice", "eu-west-1")
    made.start()
    yield made
    service.may_answer.set()
    made.close(30)


def test_an_interval_arrives_as_it_was_handed_over(publisher: CloudWatchPublisher, service: Service) -> None:
    publisher.put(
        [
            Datum("queue_wait_ms", "Milliseconds", [1.5, 20.0], [3, 1]),
            Datum("admission_rejections", "Count", [1.0], [2], {"reason": "drain_limit"}),
        ],
        NOW,
    )
    publisher.close(30)
    (request,) = service.taken()
    assert request["Namespace"] == "Sluice"
    first, second = request["MetricData"]
    assert {key: first[key] for key in ("MetricName", "Unit", "Values", "Counts")} == {
        "MetricName": "queue_wait_ms", "Unit": "Milliseconds", "Values": [1.5, 20.0], "Counts": [3, 1],
    }  # fmt: skip
    assert first["Timestamp"] == NOW.timestamp()
    assert second["Dimensions"] == [{"Name": "reason", "Value": "drain_limit"}]
    assert publisher.dropped_intervals == 0


def test_a_service_that_fails_costs_the_interval_and_one_line(
    publisher: CloudWatchPublisher, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.status = 500
    publisher.put(ONE, NOW)
    publisher.put(ONE, NOW)
    while publisher.dropped_intervals < 2:
        time.sleep(0.01)
    service.status = 200
    publisher.put(ONE, NOW)
    publisher.close(30)
    said = [record.getMessage() for record in caplog.records if record.name == cloudwatch_publisher.__name__]
    first, last = said
    assert first.startswith("CloudWatch does not take the metrics, which are dropped until it does: ")
    assert last == "CloudWatch takes the metrics again; 2 intervals were dropped"


def test_a_service_that_hangs_fills_the_queue_then_drops_and_never_blocks(
    publisher: CloudWatchPublisher, service: Service
) -> None:
    service.may_answer.clear()
    publisher.put(ONE, NOW)
    assert service.arrived.acquire(timeout=30)
    for _ in range(10):
        publisher.put(ONE, NOW)
    assert publisher.dropped_intervals == 6, "one is being sent, four wait"
    publisher.close(within_seconds=0.05)
    assert not service.may_answer.is_set(), "closing came back while the service still hung"


# --- the server -------------------------------------------------------------------------------------


@pytest.fixture
def publishing(service: Service, model_folder: Path) -> Iterator[RunningServer]:
    with running_server(
        model_path=str(model_folder), dtype="float32", backpressure_max_drain_ms=60_000,
        metrics_enabled=True, metrics_region="eu-west-1", metrics_interval_seconds=1,
    ) as running:  # fmt: skip
        running.wait_for_phase("serving")
        yield running
        service.may_answer.set()


def test_a_server_publishes_its_requests_under_the_seed_s_names(publishing: RunningServer, service: Service) -> None:
    for _ in range(3):
        get(f"{publishing.url}/v1/embeddings", {"input": ["a text", "another"]})
    answered = service.wait_for_data(lambda one: one["MetricName"] == "infer_request_count")
    assert answered["Dimensions"] == [{"Name": "status", "Value": "completed"}]
    names = {datum["MetricName"] for request in service.taken() for datum in request["MetricData"]}
    assert {
        "p95_server_side_latency_ms", "queue_wait_ms", "encoding_latency_ms", "batch_size", "queued_tokens",
        "estimated_drain_time_ms", "service_rate_tokens_per_sec", "computed_tokens",
    } <= names  # fmt: skip
    assert service.taken()[0]["Namespace"] == "GPUInference"


def test_a_hanging_service_delays_no_request_and_its_drops_are_counted(
    publishing: RunningServer, service: Service
) -> None:
    service.may_answer.clear()
    assert service.arrived.acquire(timeout=30)
    while not value(scraped(publishing), "sluice_cloudwatch_dropped_intervals_total"):
        get(f"{publishing.url}/v1/embeddings", {"input": "a text"})
    assert not service.may_answer.is_set(), "requests were answered while the service hung"


def test_a_process_ends_in_order_although_cloudwatch_and_the_trace_collector_hang(service: Service) -> None:
    service.may_answer.clear()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            **os.environ, "MODEL_PATH": "/no/such/model", "GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0",
            "HTTP_HEALTH_PORT": "0", "METRICS_ENABLED": "true", "METRICS_REGION": "eu-west-1",
            "METRICS_INTERVAL_SECONDS": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-m", "sluice_server"], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            port = next(json.loads(line)["http_port"] for line in process.stderr if '"listening"' in line)
            assert service.arrived.acquire(timeout=30)
            get(f"http://127.0.0.1:{port}/v1/embeddings", {"input": "a text"}, expect=503)
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(30) == 0
    assert not service.may_answer.is_set()


# --- settings ---------------------------------------------------------------------------------------


def refusal(**given_: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        Settings(metrics_enabled=True, **given_)
    return describe(refused.value)


def test_without_the_extra_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module.importlib.util, "find_spec", lambda _: None)
    assert refusal(metrics_region="eu-west-1") == (
        "METRICS_ENABLED=true: CloudWatch needs the extra `cloudwatch`; "
        "expected pip install 'sluice-server[cloudwatch]', or METRICS_ENABLED=false"
    )


def test_a_bad_setting_of_cloudwatch_ends_the_process_before_anything_is_loaded() -> None:
    hidden = "import sys; sys.modules['boto3'] = None; from sluice_server.__main__ import main; sys.exit(main())"
    environment = {**os.environ, "METRICS_ENABLED": "true", "METRICS_REGION": "eu-west-1", "MODEL_PATH": "/no/model"}
    ended = subprocess.run(
        [sys.executable, "-c", hidden], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("METRICS_ENABLED=true: CloudWatch needs the extra `cloudwatch`")
    assert ended.stderr.count("\n") == 1


def test_without_a_region_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert refusal() == "METRICS_ENABLED=true: no region is known; expected METRICS_REGION or AWS_REGION"
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert Settings(metrics_enabled=True).metrics_region == "eu-central-1"


@pytest.mark.parametrize("namespace", ["AWS/Sluice", "", "two words"])
def test_a_namespace_that_cloudwatch_refuses_is_a_bad_setting(namespace: str) -> None:
    assert refusal(metrics_namespace=namespace, metrics_region="eu-west-1").startswith(
        f"METRICS_NAMESPACE={namespace}:"
    )


def test_it_is_off_by_default() -> None:
    assert not Settings().metrics_enabled
