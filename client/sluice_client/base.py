"""What the blocking and the asyncio client share: how they are made, what they learn, and their errors."""

import math
import re
import threading
import time
from typing import Any

import grpc
from sluice.v1 import embeddings_pb2 as pb

from sluice_client import requests
from sluice_client.channel import ChannelOptions, check_target
from sluice_client.errors import EmbeddingError, UnavailableError, UsageError, class_of
from sluice_client.pipeline import Emit, Fail, Pipeline
from sluice_client.results import Embedded
from sluice_client.retry import Failure, RetryBudget, RetryPolicy
from sluice_client.splitting import Part, PartSize, ServiceLimits, limits_of

# What the service told of itself is asked anew after so long: it may have been rolled out meanwhile.
_LIMITS_SECONDS = 300.0
# After a deadline passed without an answer: how long to ask the channel for the reason.
DIAGNOSIS_SECONDS = 0.2
_INPUT = re.compile(r"\binput (\d+)\b")


class BaseClient:
    """Makes the state of calls; sends nothing itself.

    Args:
        target: `dns:///NAME-headless:50051` to balance over the pods of the EmbeddingService NAME.
        channel_options: TLS, token, message size; default: plain text, no token.
        deadline_seconds: For one call of embed() or info(), retries included; of embed_iter() for each of
            its requests.
        max_inputs_per_request: Larger inputs are split. The service's own limit counts where it is smaller.
        max_tokens_per_request: The same in tokens, which are estimated where the inputs are texts.
        max_in_flight: So many requests of one call are under way at once; fewer while the service refuses.
        retry_policy: How often and how patiently a refused request is sent again.

    Raises:
        ValueError: A value that cannot work.
    """

    def __init__(
        self,
        target: str,
        *,
        channel_options: ChannelOptions | None = None,
        deadline_seconds: float = 60.0,
        max_inputs_per_request: int = 64,
        max_tokens_per_request: int = 4096,
        max_in_flight: int = 8,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        for name, value in (
            ("max_inputs_per_request", max_inputs_per_request),
            ("max_tokens_per_request", max_tokens_per_request),
            ("max_in_flight", max_in_flight),
        ):
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        self.target = check_target(target)
        self._channel_options = channel_options or ChannelOptions()
        self._metadata = self._channel_options.metadata
        self._deadline_seconds = _checked_deadline(deadline_seconds)
        self._max_inputs, self._max_tokens = max_inputs_per_request, max_tokens_per_request
        self._max_in_flight = max_in_flight
        self._policy = retry_policy or RetryPolicy()
        self._budget = RetryBudget(self._policy)
        self._learned: tuple[ServiceLimits, float] | None = None
        self._closed = False
        self._lock = threading.Lock()  # guards the channel

    # --- the state of one call ----------------------------------------------------------------------

    def _pipeline(self, *, deadline: float = math.inf, part_seconds: float = math.inf) -> Pipeline:
        return Pipeline(
            self._policy,
            self._budget,
            max_in_flight=self._max_in_flight,
            deadline=deadline,
            part_seconds=part_seconds,
        )

    def _seconds(self, deadline_seconds: float | None) -> float:
        return self._deadline_seconds if deadline_seconds is None else _checked_deadline(deadline_seconds)

    def _deadline(self, deadline_seconds: float | None) -> float:
        return time.monotonic() + self._seconds(deadline_seconds)

    def _known_limits(self) -> ServiceLimits | None:
        if self._learned is None or time.monotonic() - self._learned[1] > _LIMITS_SECONDS:
            return None
        return self._learned[0]

    def _learn(self, info: pb.GetInfoResponse) -> ServiceLimits:
        try:
            limits = limits_of(info)
        except ValueError as error:
            raise UnavailableError(grpc.StatusCode.UNAVAILABLE, str(error), 1, self.target) from None
        self._learned = (limits, time.monotonic())
        return limits

    def _part_size(self, limits: ServiceLimits) -> PartSize:
        return PartSize.within(limits, max_inputs=self._max_inputs, max_tokens=self._max_tokens)

    def _embedded(self, emit: Emit) -> Embedded:
        part, reply = emit.part, emit.reply
        try:
            rows = requests.decode(reply, len(part.inputs))
        except ValueError as error:
            raise EmbeddingError(grpc.StatusCode.INTERNAL, str(error), 1, self.target, part.positions) from None
        return Embedded(
            inputs=tuple(part.inputs),
            embeddings=rows,
            first=part.first,
            truncated=tuple(part.first + position for position in reply.truncated_inputs),
            tokens_used=reply.tokens_used,
        )

    # --- errors ---------------------------------------------------------------------------------------

    def _error(self, fail: Fail, diagnosis: Failure | None) -> EmbeddingError:
        """The error of a call that failed; the diagnosis tells what the channel knows of its connections."""
        code, details = fail.failure.code, fail.failure.details
        if ran_out_of_time(fail):
            details = f"no answer within {fail.seconds:.1f} s"
            if diagnosis is not None and diagnosis.code is grpc.StatusCode.UNAVAILABLE:
                code = diagnosis.code
                details = f"no server was reached within {fail.seconds:.1f} s: {diagnosis.details}"
        if code is grpc.StatusCode.INVALID_ARGUMENT and fail.part.first:
            # The server counts within the request, the caller within all inputs.
            details = _INPUT.sub(lambda found: f"input {fail.part.first + int(found[1])}", details)
        if fail.reason:
            details = f"{details} ({fail.reason})"
        return class_of(code)(code, details, fail.attempts, self.target, fail.part.positions or None)

    def _closed_error(self) -> UsageError:
        return UsageError(None, "the client is closed", 0, self.target)


def no_single_text(inputs: object) -> None:
    """A text is a sequence of texts, too, and never what was meant.

    Raises:
        TypeError: The inputs are one text.
    """
    if isinstance(inputs, str | bytes):
        raise TypeError(f"inputs is a {type(inputs).__name__}; expected a list of texts or of rows of token ids")


def ran_out_of_time(fail: Fail) -> bool:
    """The deadline passed on this side: only the channel may know why, as gRPC hides what a request waited for."""
    return fail.failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and not fail.in_time


def request_part(request: Any) -> Part:
    """A call of one request that holds no inputs."""
    return Part(0, 0, (), request)


def _checked_deadline(seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise ValueError(f"deadline_seconds={seconds}: expected more than 0 and less than infinity")
    return seconds
