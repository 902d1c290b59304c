"""Every way in which the server says no, and the one table that maps it to gRPC and HTTP."""

import math
from dataclasses import dataclass
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True)
class WireStatus:
    """How a domain error reads on the wire.

    Attributes:
        grpc: Status code of a gRPC call.
        http: Status code of an HTTP reply.
        kind: OpenAI's `type` in an HTTP error body, and the `reason` label in metrics.
    """

    grpc: grpc.StatusCode
    http: int
    kind: str


class SluiceError(Exception):
    """Base of what a caller may be told. The text is a sentence for the caller."""

    retry_after_ms: int | None = None


class InvalidRequestError(SluiceError):
    """The request cannot be served by any server: trying again does not help."""


class InputTooLongError(InvalidRequestError):
    """One input is longer than the model takes and the caller asked not to truncate."""


class UnauthenticatedError(SluiceError):
    """No bearer token, or a wrong one."""


class OverloadedError(SluiceError):
    """Refused at admission: the queue would take longer than its limit.

    Args:
        message: What limit was met, with both values.
        retry_after_ms: When the estimate says there will be room again.
    """

    def __init__(self, message: str, *, retry_after_ms: float) -> None:
        super().__init__(message)
        self.retry_after_ms = max(1, math.ceil(retry_after_ms))


class DeadlineTooShortError(SluiceError):
    """Refused at admission: the estimate says that the caller would be gone before the answer.

    Args:
        estimated_ms: Until this request would be done.
        remaining_ms: Until the caller's deadline.
    """

    def __init__(self, *, estimated_ms: float, remaining_ms: float) -> None:
        super().__init__(
            f"this would take about {estimated_ms:.0f} ms and the deadline is in {max(0.0, remaining_ms):.0f} ms"
        )


class ExpiredError(SluiceError):
    """Admitted, but the deadline passed before it was computed."""


class DrainingError(SluiceError):
    """The server is shutting down; another replica will answer."""


class NotReadyError(SluiceError):
    """The model is not served yet, or has failed."""


class ComputeError(SluiceError):
    """The model failed on this request's batch."""


class ModelLoadError(Exception):
    """The model cannot be loaded. The text is a sentence for a person: what was looked for and where."""


class StatusTable:
    """Domain error to wire status: the most specific class in the error's ancestry counts."""

    _ROWS: ClassVar[dict[type[BaseException], WireStatus]] = {
        InvalidRequestError: WireStatus(grpc.StatusCode.INVALID_ARGUMENT, 400, "invalid_request"),
        UnauthenticatedError: WireStatus(grpc.StatusCode.UNAUTHENTICATED, 401, "unauthenticated"),
        OverloadedError: WireStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "overloaded"),
        DeadlineTooShortError: WireStatus(grpc.StatusCode.DEADLINE_EXCEEDED, 504, "deadline_too_short"),
        ExpiredError: WireStatus(grpc.StatusCode.DEADLINE_EXCEEDED, 504, "expired"),
        DrainingError: WireStatus(grpc.StatusCode.UNAVAILABLE, 503, "draining"),
        NotReadyError: WireStatus(grpc.StatusCode.UNAVAILABLE, 503, "not_ready"),
        ComputeError: WireStatus(grpc.StatusCode.INTERNAL, 500, "compute_failed"),
    }
    _OUR_FAULT: ClassVar[WireStatus] = WireStatus(grpc.StatusCode.INTERNAL, 500, "internal")

    @classmethod
    def of(cls, error: BaseException) -> WireStatus:
        """The wire status of any exception; what is not a domain error is our own fault."""
        return next((cls._ROWS[kind] for kind in type(error).__mro__ if kind in cls._ROWS), cls._OUR_FAULT)


def sentence(error: BaseException) -> str:
    """What the caller is told; the text of an unexpected exception stays in the log."""
    return str(error) if isinstance(error, SluiceError) else "internal error; the server's log has the details"
