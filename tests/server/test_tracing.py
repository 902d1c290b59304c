"""Spans: under the caller's, saying where the time went, sent to a real OTLP receiver; and nothing at all when off."""

import queue
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from gpu_inference import inference_pb2 as infer_pb
from gpu_inference import inference_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server.counters import Counters
from sluice_server.observability import scope as scopes
from sluice_server.observability import spans, tracing
from sluice_server.observability.observer import RequestObserver
from sluice_server.observability.scope import EMBED, EMBED_STREAM, OPENAI
from sluice_server.requests import Priority, Terms
from sluice_server.serving import Embedded, EmbedOptions

from tests.server.conftest import RunningServer, running_server
from tests.server.test_logs import asked_over_http

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
TEXTS = pb.Texts(values=["a text", "another one"])


def embedded() -> Embedded:
    return Embedded(
        np.zeros((2, 3), np.float32),
        tokens_used=9,
        tokenize_ms=1,
        queue_ms=20,
        compute_ms=8,
        total_ms=30,
        drain_ms=None,
        truncated=[1],
    )


# --- content, in memory -------------------------------------------------------------------------


@dataclass(slots=True)
class Traced:
    """An observer whose spans stay here."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    sampler: sampling.Sampler | None = None

    def observer(self) -> RequestObserver:
        provider = TracerProvider(self.sampler, spans.resource(), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        return RequestObserver(Counters(), (), spans.Tracing(provider))

    def by_name(self) -> dict[str, ReadableSpan]:
        return {one.name: one for one in self.exporter.get_finished_spans()}


@pytest.fixture
def traced() -> Iterator[Traced]:
    yield Traced()
    scopes.enter(None)


def milliseconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e6


def test_a_request_is_one_server_span_under_the_caller_s(traced: Traced) -> None:
    observer = traced.observer()
    scope = observer.begin(EMBED, {"traceparent": TRACEPARENT, "x-request-id": "abc", "key-bin": b"\x00"})
    observer.observe(embedded(), EmbedOptions(terms=Terms(Priority.BATCH)))
    observer.end(scope, "OK")
    span = traced.by_name()["sluice.v1.Embeddings/Embed"]
    assert span.kind is SpanKind.SERVER
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, PARENT_ID)
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc", "rpc.method": "sluice.v1.Embeddings/Embed", "rpc.response.status_code": "OK",
        "sluice.request_id": "abc", "sluice.tokens": 9, "sluice.inputs": 2, "sluice.truncated_inputs": 1,
        "sluice.priority": "batch",
    }  # fmt: skip
    assert span.status.status_code is StatusCode.UNSET


def test_below_it_the_time_goes_to_tokenizing_waiting_and_computing_in_turn(traced: Traced) -> None:
    observer = traced.observer()
    scope = observer.begin(EMBED, {})
    observer.observe(embedded(), EmbedOptions())
    observer.end(scope, "OK")
    named = traced.by_name()
    parts = [named[f"sluice.{name}"] for name in ("tokenize", "queue", "compute")]
    assert [milliseconds(one) for one in parts] == [1, 20, 8]
    assert [one.end_time for one in parts[:2]] == [one.start_time for one in parts[1:]]
    assert {one.parent.span_id for one in parts if one.parent} == {named[EMBED.span_name].context.span_id}


@pytest.mark.parametrize(
    ("api", "code", "is_error"),
    [
        (EMBED, "RESOURCE_EXHAUSTED", False), (EMBED, "INVALID_ARGUMENT", False), (EMBED, "INTERNAL", True),
        (EMBED, "DEADLINE_EXCEEDED", True), (OPENAI, "400", False), (OPENAI, "429", False), (OPENAI, "503", True),
    ],
)  # fmt: skip
async def test_a_span_is_an_error_where_the_conventions_say_so(
    traced: Traced, api: Any, code: str, is_error: bool
) -> None:
    observer = traced.observer()
    observer.end(observer.begin(api, {}), code)
    span = traced.by_name()[api.span_name]
    assert (span.status.status_code is StatusCode.ERROR) == is_error
    said = span.attributes or {}
    assert said.get("error.type") == (code if is_error else None)
    assert said.get("http.response.status_code") == (int(code) if api is OPENAI else None)


def test_each_request_of_a_stream_is_a_span_below_the_stream_s(traced: Traced) -> None:
    observer = traced.observer()
    stream = observer.begin(EMBED_STREAM, {"traceparent": TRACEPARENT}, is_stream=True)
    observer.end(observer.begin_message(stream, "1"), "OK")
    observer.end(stream, "OK")
    named = traced.by_name()
    message, call = named["sluice.stream.request"], named[EMBED_STREAM.span_name]
    assert message.parent is not None
    assert message.parent.span_id == call.context.span_id
    assert (message.attributes or {})["sluice.request_id"] == f"{TRACE_ID}/1"


def test_what_the_sampler_leaves_out_is_not_sent(traced: Traced) -> None:
    traced.sampler = sampling.ParentBased(sampling.ALWAYS_ON)
    observer = traced.observer()
    scope = observer.begin(EMBED, {"traceparent": TRACEPARENT.removesuffix("01") + "00"})
    observer.observe(embedded(), EmbedOptions())
    observer.end(scope, "OK")
    assert scope.trace is not None
    assert scope.trace.trace_id == TRACE_ID, "log lines still lead to the caller's trace"
    assert traced.by_name() == {}


def test_the_resource_is_ours_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spans.resource().attributes["service.name"] == "sluice-server"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "search-embeddings")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pod-1,service.version=9")
    said = spans.resource().attributes
    assert (said["service.name"], said["k8s.pod.name"], said["service.version"]) == ("search-embeddings", "pod-1", "9")


def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            reached.set()
            assert go_on.wait(60)
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans.BatchSpanProcessor(Hanging()))
    tracer = spans.Tracing(provider)
    observer = RequestObserver(Counters(), (), tracer)
    observer.end(observer.begin(EMBED, {}), "OK")
    tracer.close(within_seconds=0.05)
    assert not go_on.is_set(), "closing came back while the collector still hung"
    assert reached.wait(10)
    go_on.set()


# --- on or off ----------------------------------------------------------------------------------

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
        (ENDPOINT, "grpc"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, "grpc"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "grpc",
        ),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_traces_are_sent_where_an_endpoint_is_named(environment: dict[str, str], protocol: str | None) -> None:
    assert tracing.wanted_protocol(environment) == protocol


def test_an_endpoint_without_the_extra_is_told_once_and_the_server_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing.importlib.util, "find_spec", lambda _: None)
    assert tracing.configure(ENDPOINT) is None
    assert [record.getMessage() for record in caplog.records] == [
        "no traces: an OTLP endpoint is set, but the server is installed without its extra `otel`"
    ]


def test_an_unknown_protocol_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert tracing.configure({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}) is None
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/json; expected one of grpc, http/protobuf" in caplog.text


def test_variables_that_cannot_be_used_cost_the_traces_and_not_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    assert tracing.configure(ENDPOINT) is None
    assert "no traces: the OTEL_* variables cannot be used" in caplog.text


def test_a_request_without_tracing_has_no_trace() -> None:
    observer = RequestObserver(Counters())
    scope = observer.begin(EMBED, {"traceparent": TRACEPARENT})
    assert scope.trace is None
    observer.end(scope, "OK")


# --- end to end: a real server, a real receiver --------------------------------------------------


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """OTLP over gRPC and HTTP; keeps the spans."""

    def __init__(self) -> None:
        self.spans: queue.Queue[tuple[str, Any]] = queue.Queue()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for batch in request.resource_spans:
            service = {one.key: one.value.string_value for one in batch.resource.attributes}["service.name"]
            for group in batch.scope_spans:
                for span in group.spans:
                    self.spans.put((service, span))
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, name: str) -> tuple[str, Any]:
        """The next span of this name, and the service that sent it."""
        while True:
            service, span = self.spans.get(timeout=30)
            if span.name == name:
                return service, span


def grpc_receiver(collector: Collector) -> tuple[str, Any]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return f"http://127.0.0.1:{port}", lambda: server.stop(0).wait()


def http_receiver(collector: Collector) -> tuple[str, Any]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = collector.Export(trace_service_pb2.ExportTraceServiceRequest.FromString(body), None)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(answer.SerializeToString())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join(10)
        server.server_close()

    return f"http://127.0.0.1:{server.server_port}", stop


@pytest.fixture(
    scope="module", params=[("grpc", grpc_receiver), ("http/protobuf", http_receiver)], ids=lambda it: it[0]
)
def sending(request: Any, model_folder: Path) -> Iterator[tuple[RunningServer, Collector]]:
    """A server that sends its spans to a receiver on this machine."""
    protocol, receiver = request.param
    collector = Collector()
    endpoint, stop = receiver(collector)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with running_server(model_path=str(model_folder), dtype="float32", backpressure_max_drain_ms=60_000) as running:
            running.wait_for_phase("serving")
            patch.undo()
            yield running, collector
    stop()


def test_a_caller_s_trace_goes_on_in_the_server(sending: tuple[RunningServer, Collector]) -> None:
    running, collector = sending
    ids = np.array([[101, 102]], "<i4")
    infer = infer_pb.InferRequest(
        request_id="its-own", input_ids_bytes=ids.tobytes(), attention_mask_bytes=np.ones_like(ids).tobytes(),
        num_items=1, seq_len=2,
    )  # fmt: skip
    metadata = (("traceparent", TRACEPARENT), ("tracestate", "vendor=1"))
    with running.channel() as channel:
        stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
        stub.Embed(pb.EmbedRequest(texts=TEXTS), timeout=30, metadata=metadata)
        stream = iter([pb.EmbedRequest(request_id="1", texts=TEXTS)])
        assert len(list(stub.EmbedStream(stream, timeout=30, metadata=metadata))) == 1
        inference_pb2_grpc.InferenceServiceStub(channel).Infer(infer, timeout=30, metadata=metadata)
    assert asked_over_http(running, {"input": "a"}, {"Traceparent": TRACEPARENT}) == (200, TRACE_ID)
    received = {}
    for name in ("sluice.v1.Embeddings/Embed", "sluice.v1.Embeddings/EmbedStream",
                 "gpu_inference.InferenceService/Infer", "POST /v1/embeddings"):  # fmt: skip
        service, span = collector.wait_for(name)
        assert (service, span.trace_id.hex(), span.parent_span_id.hex()) == ("sluice-server", TRACE_ID, PARENT_ID)
        received[name] = {one.key: one.value for one in span.attributes}
    assert received["sluice.v1.Embeddings/Embed"]["sluice.inputs"].int_value == 2
    assert received["gpu_inference.InferenceService/Infer"]["sluice.request_id"].string_value == "its-own"
    assert received["POST /v1/embeddings"]["http.response.status_code"].int_value == 200


def test_what_is_queued_when_the_server_ends_is_sent(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    endpoint, stop = grpc_receiver(collector)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    with running_server(model_path="/no/such/model") as running:
        running.wait_for_phase("failed")
        assert asked_over_http(running, {"input": "a"}, {"Traceparent": TRACEPARENT})[0] == 503
        assert collector.spans.empty()
    _, span = collector.wait_for("POST /v1/embeddings")
    assert span.trace_id.hex() == TRACE_ID
    stop()
