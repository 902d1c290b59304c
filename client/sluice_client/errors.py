"""What a caller can catch: one root, and one class for each thing that a caller may do about it."""

from typing import ClassVar

import grpc


class EmbeddingError(Exception):
    """The final word on a request, after every retry that was allowed; the root of all the others.

    Attributes:
        code: The gRPC status; None where the request never left this process.
        details: The server's sentence, or gRPC's, or this client's.
        attempts: How often the request was sent.
        target: The address that the client was made with.
        inputs: Positions of the inputs that the failed request held; None where it held none.
        hint: What usually helps.
    """

    hint: ClassVar[str] = "the server's log has the cause"

    def __init__(
        self,
        code: grpc.StatusCode | None,
        details: str,
        attempts: int = 0,
        target: str = "",
        inputs: range | None = None,
    ) -> None:
        # All of them are the exception's args, so that it passes between processes whole.
        super().__init__(code, details, attempts, target, inputs)
        self.code = code
        self.details = details
        self.attempts = attempts
        self.target = target
        self.inputs = inputs

    def __str__(self) -> str:
        where = f"{self.target}: " if self.target else ""
        if self.code is None:
            return f"{where}{self.details}"
        attempts = f"{self.attempts} attempt{'s' * (self.attempts != 1)}"
        return f"{where}{self.code.name} after {attempts}{_positions(self.inputs)}: {self.details}"


class InvalidRequestError(EmbeddingError, ValueError):
    """The input or an option can never be served as it is; the text names the value and what is allowed."""

    hint = "change the input or the option that is named"


class UnauthenticatedError(EmbeddingError):
    """The bearer token is missing, wrong, or not enough."""

    hint = "give the server's bearer token (ChannelOptions.bearer_token; sluice-embed reads it from SLUICE_TOKEN)"


class OverloadedError(EmbeddingError):
    """Refused to keep the queues short, until the attempts or the deadline were used up."""

    hint = "come back later, allow a longer deadline, or raise maxReplicas of the EmbeddingService"


class UnavailableError(EmbeddingError):
    """No server could be reached that serves."""

    hint = "check the address, and with `kubectl get embeddingservices` that the service is Ready"


class DeadlineError(EmbeddingError, TimeoutError):
    """Not answered before the deadline, or refused because it could not have been."""

    hint = "allow a longer deadline, or ask for less at once"


class UsageError(EmbeddingError, RuntimeError):
    """The client was used after close(), or from another event loop than the one that it was first used in."""

    hint = "open a client where it is used, and close it there"


_CLASSES: dict[grpc.StatusCode, type[EmbeddingError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: UnauthenticatedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


def class_of(code: grpc.StatusCode) -> type[EmbeddingError]:
    """The class for a status; EmbeddingError itself where a caller can do nothing about it."""
    return _CLASSES.get(code, EmbeddingError)


def _positions(inputs: range | None) -> str:
    if not inputs:
        return ""
    return f", input {inputs[0]}" if len(inputs) == 1 else f", inputs {inputs[0]} to {inputs[-1]}"
