"""What can go wrong, in the words of the domain. rpc/status.py maps each to gRPC and HTTP codes, once.

A refusal's `reason` is its label in the metrics.
"""


class SluiceError(Exception):
    """The root of every error that a caller may see; its text is a sentence for that caller."""


class InvalidRequestError(SluiceError):
    """The request can never be served as it is; the text names the value and what is allowed."""


class InputTooLongError(InvalidRequestError):
    """An input is longer than the model takes, and the caller asked not to truncate."""


class OverloadedError(SluiceError):
    """Refused to keep the queue short.

    Attributes:
        retry_after_ms: When there should be room again; None when the server cannot tell.
        reason: Which limit refused: a label of the metrics.
    """

    def __init__(self, message: str, retry_after_ms: int | None, reason: str) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms
        self.reason = reason


class DeadlineTooShortError(SluiceError):
    """Refused at once: the work would end after the caller's deadline."""

    reason = "deadline"


class DeadlineExceededError(SluiceError):
    """Admitted, but the deadline passed before the work was computed; it was dropped."""


class DrainingError(SluiceError):
    """The server is shutting down and takes no new work."""

    reason = "draining"


class NotReadyError(SluiceError):
    """The model is not loaded and warm yet."""

    reason = "not_ready"


class ServerFailedError(SluiceError):
    """The server cannot serve any more; the text says why."""

    reason = "failed"


class BatchFailedError(SluiceError):
    """The device failed on the batch that held this request; other requests go on."""


class ModelLoadError(SluiceError):
    """The model cannot be loaded; the text names what is missing and what is expected."""


class UnauthenticatedError(SluiceError):
    """The bearer token is missing or wrong."""
