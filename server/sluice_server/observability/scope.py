"""The request that the current task serves: what log records, answers and observers know it by."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sluice_server.observability.spans import RequestTrace
    from sluice_server.serving import Embedded


@dataclass(frozen=True, slots=True, eq=False)
class Api:
    """One way to ask for embeddings.

    Attributes:
        label: Of the metrics and the log.
        span_name: As OpenTelemetry's conventions have it.
        span_attributes: Known before the request is.
    """

    label: str
    span_name: str
    span_attributes: "Mapping[str, str]"


def grpc_api(label: str, method: str) -> Api:
    """For a gRPC method, `package.Service/Method`."""
    return Api(label, method, MappingProxyType({"rpc.system.name": "grpc", "rpc.method": method}))


EMBED = grpc_api("embed", "sluice.v1.Embeddings/Embed")
EMBED_STREAM = grpc_api("embed_stream", "sluice.v1.Embeddings/EmbedStream")
INFER = grpc_api("infer", "gpu_inference.InferenceService/Infer")
OPENAI = Api(
    "openai",
    "POST /v1/embeddings",
    MappingProxyType(
        {
            "http.request.method": "POST",
            "http.route": "/v1/embeddings",
            "url.path": "/v1/embeddings",
            "url.scheme": "http",
        }
    ),
)
APIS = (EMBED, EMBED_STREAM, INFER, OPENAI)


@dataclass(slots=True, eq=False)
class RequestScope:
    """One request from its arrival to its end.

    Attributes:
        api: By which it came.
        request_id: By which it is known.
        started: On time.perf_counter, in seconds.
        trace: None while tracing is off.
        embedded: Its answer, once there is one.
        priority: Of the answered request, in lower case.
        is_stream: A call that holds requests: they count, and it only where it fails.
    """

    api: Api
    request_id: str
    started: float
    trace: "RequestTrace | None" = None
    embedded: "Embedded | None" = field(default=None, repr=False)
    priority: str = ""
    is_stream: bool = False


_CURRENT: ContextVar[RequestScope | None] = ContextVar("sluice_request", default=None)

current = _CURRENT.get


def enter(scope: RequestScope | None) -> None:
    """From now on this task serves that request, or none."""
    _CURRENT.set(scope)


def request_id() -> str | None:
    """Of the request that this task serves; None where it serves none."""
    scope = _CURRENT.get()
    return None if scope is None else scope.request_id
