"""The one table from domain errors to status codes of gRPC and HTTP, and the trailers that go with them."""

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from sluice_server import errors

CODES: Mapping[type[errors.SluiceError], tuple[grpc.StatusCode, int]] = {
    errors.InvalidRequestError: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    errors.InputTooLongError: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    errors.UnauthenticatedError: (grpc.StatusCode.UNAUTHENTICATED, 401),
    errors.OverloadedError: (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    errors.DrainingError: (grpc.StatusCode.UNAVAILABLE, 503),
    errors.NotReadyError: (grpc.StatusCode.UNAVAILABLE, 503),
    errors.ServerFailedError: (grpc.StatusCode.UNAVAILABLE, 503),
    errors.DeadlineTooShortError: (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    errors.DeadlineExceededError: (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    errors.BatchFailedError: (grpc.StatusCode.INTERNAL, 500),
}
_OURS = (grpc.StatusCode.INTERNAL, 500)
# Callers that were refused together must not come back together.
_JITTER = (0.75, 1.25)

# A caller's own words may stand in a message, and gRPC refuses trailers of more than 8 KiB.
_MESSAGE_CHARACTERS = 400

_RETRY_INFO = f"type.googleapis.com/{error_details_pb2.RetryInfo.DESCRIPTOR.full_name}"

Trailers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class End:
    """How a call ends that failed."""

    code: grpc.StatusCode
    details: str
    trailers: Trailers = ()


def grpc_code(error: errors.SluiceError) -> grpc.StatusCode:
    """Of the error."""
    return CODES.get(type(error), _OURS)[0]


def http_code(error: errors.SluiceError) -> int:
    """Of the error."""
    return CODES.get(type(error), _OURS)[1]


def message(error: errors.SluiceError) -> str:
    """The error's sentence; what is too long for a header loses its middle."""
    whole = str(error)
    half = _MESSAGE_CHARACTERS // 2
    return whole if len(whole) <= _MESSAGE_CHARACTERS else f"{whole[:half]} … {whole[-half:]}"


def retry_after_ms(error: errors.SluiceError) -> int | None:
    """When to come back, jittered; None where coming back does not help or the server cannot tell."""
    if not isinstance(error, errors.OverloadedError) or error.retry_after_ms is None:
        return None
    return round(error.retry_after_ms * random.uniform(*_JITTER))  # noqa: S311 - jitter, not a secret


def end_of(error: errors.SluiceError) -> End:
    """Of a call that failed so.

    Where coming back helps, it says when: `grpc-retry-pushback-ms` (gRFC A6) for clients that retry by themselves,
    google.rpc.RetryInfo for the others.
    """
    code, details, wait_ms = grpc_code(error), message(error), retry_after_ms(error)
    if wait_ms is None:
        return End(code, details)
    # The bytes of two messages, one after the other, are those of both merged (protobuf's encoding, "last one wins").
    status = status_pb2.Status(message=details).SerializeToString() + _code_and_retry_info(code.value[0], wait_ms)
    return End(code, details, (("grpc-retry-pushback-ms", str(wait_ms)), ("grpc-status-details-bin", status)))


@functools.lru_cache(maxsize=8192)
def _code_and_retry_info(code: int, wait_ms: int) -> bytes:
    """The same few thousand again and again: to make them takes longer than the rest of a refusal's status."""
    delay = duration_pb2.Duration(seconds=wait_ms // 1000, nanos=wait_ms % 1000 * 1_000_000)
    info = error_details_pb2.RetryInfo(retry_delay=delay)
    details = any_pb2.Any(type_url=_RETRY_INFO, value=info.SerializeToString())
    both: bytes = status_pb2.Status(code=code, details=[details]).SerializeToString()
    return both
