"""Requests as OpenTelemetry spans: one per request under the caller's, and what it spent its time on below it."""

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode

from sluice_server import __version__
from sluice_server.observability.scope import Api, RequestScope
from sluice_server.serving import Embedded


@dataclass(frozen=True, slots=True, eq=False)
class RequestTrace:
    """One request's span while it is served.

    Attributes:
        span: The server's own, or one of a stream's messages.
        trace_id: 32 hexadecimal digits.
    """

    span: Span
    trace_id: str


class Tracing:
    """Makes spans; the exporter sends them from its own thread, and drops what its bounded queue cannot hold.

    Args:
        provider: Where they go, and which of them are kept.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("sluice_server", __version__)

    def start(self, api: Api, metadata: Mapping[str, str | bytes]) -> RequestTrace:
        """A server span under the caller's, where the metadata name one (W3C traceparent, or OTEL_PROPAGATORS')."""
        carrier = {name.lower(): value for name, value in metadata.items() if isinstance(value, str)}
        span = self._tracer.start_span(
            api.span_name,
            context=propagate.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=dict(api.span_attributes),
        )
        return _traced(span)

    def start_message(self, stream: RequestTrace) -> RequestTrace:
        """A span for one request of a stream, under the stream's."""
        context = trace.set_span_in_context(stream.span)
        return _traced(self._tracer.start_span("sluice.stream.request", context=context))

    def end(self, scope: RequestScope, code: str, *, failed: bool) -> None:
        """Ends the request's span with its code, and its time in parts.

        Args:
            scope: A traced request.
            code: A gRPC status' name or an HTTP status.
            failed: The server's fault, by OpenTelemetry's conventions.
        """
        assert scope.trace is not None, "only traced requests end here"
        span = scope.trace.span
        if not span.is_recording():
            return
        span.set_attribute("sluice.request_id", scope.request_id)
        if code.isdigit():
            span.set_attribute("http.response.status_code", int(code))
        else:
            span.set_attribute("rpc.response.status_code", code)
        if scope.embedded is not None:
            self._describe(span, scope.embedded, scope.priority)
        if failed:
            span.set_attribute("error.type", code)
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self, within_seconds: float) -> None:
        """Sends what is queued, as far as the time suffices; blocks."""
        # The SDK may wait for half a minute for a collector that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="trace-flush", daemon=True)
        closing.start()
        closing.join(within_seconds)

    def _describe(self, span: Span, embedded: Embedded, priority: str) -> None:
        span.set_attributes({
            "sluice.tokens": embedded.tokens_used,
            "sluice.inputs": len(embedded.embeddings),
            "sluice.truncated_inputs": len(embedded.truncated),
            "sluice.priority": priority,
        })  # fmt: skip
        context = trace.set_span_in_context(span)
        at = time.time_ns() - _nanoseconds(embedded.total_ms)
        for name, milliseconds in (
            ("tokenize", embedded.tokenize_ms),
            ("queue", embedded.queue_ms),
            ("compute", embedded.compute_ms),
        ):
            if milliseconds > 0:
                child = self._tracer.start_span(f"sluice.{name}", context=context, start_time=at)
                at += _nanoseconds(milliseconds)
                child.end(at)


def exporting(protocol: str) -> Tracing:
    """Spans in batches to the OTLP endpoint; everything else is OpenTelemetry's own variables' to say.

    Args:
        protocol: grpc or http/protobuf.
    """
    provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(protocol)))
    return Tracing(provider)


def resource() -> Resource:
    """Who sends the spans: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before our own words."""
    own = Resource({
        SERVICE_NAME: "sluice-server", SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: socket.gethostname(),
    })  # fmt: skip
    return Resource.create().merge(own).merge(OTELResourceDetector().detect())


def _exporter(protocol: str) -> SpanExporter:
    # Each brings its own client library: only the one that is used is imported.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415

    return trace_exporter.OTLPSpanExporter()


def _traced(span: Span) -> RequestTrace:
    return RequestTrace(span, trace.format_trace_id(span.get_span_context().trace_id))


def _nanoseconds(milliseconds: float) -> int:
    return int(1e6 * milliseconds)
