"""Whether requests are traced: the standard OTEL_* variables decide, and nothing is imported while they do not ask."""

import importlib.util
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sluice_server.observability.spans import Tracing

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = {
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
}


def configure(environment: Mapping[str, str]) -> "Tracing | None":
    """Spans to the OTLP endpoint that the environment names; None where it names none, or forbids them."""
    protocol = wanted_protocol(environment)
    if protocol is None:
        return None
    if protocol not in _EXPORTERS:
        logger.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL=%s; expected one of %s", protocol, ", ".join(_EXPORTERS))
        return None
    if not _is_installed(_EXPORTERS[protocol]):
        logger.warning("no traces: an OTLP endpoint is set, but the server is installed without its extra `otel`")
        return None
    try:
        from sluice_server.observability.spans import exporting  # noqa: PLC0415 - not imported unless it is asked for

        return exporting(protocol)
    except Exception:
        logger.exception("no traces: the OTEL_* variables cannot be used")
        return None


def wanted_protocol(environment: Mapping[str, str]) -> str | None:
    """`grpc` unless another one is named; None where no traces are asked for."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if disabled or exporter != "otlp" or not any(environment.get(name, "").strip() for name in _ENDPOINTS):
        return None
    return next((said for name in _PROTOCOLS if (said := environment.get(name, "").strip())), "grpc")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
