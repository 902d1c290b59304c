"""Whether and when to send a request again. Pure: the clock and the dice are parameters."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from sluice_client.retry_info import retry_delay_seconds

# Asked again although nothing says when. CANCELLED is not the caller's own here: gRPC's server says it, before any code
# of ours, to calls beyond the thousand or so that wait for it to look at them.
_RETRYABLE_UNTOLD = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_RETRYABLE = (grpc.StatusCode.RESOURCE_EXHAUSTED, *_RETRYABLE_UNTOLD)
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_STATUS_KEY = "grpc-status-details-bin"
# Callers that were told the same do not come back at the same moment; never sooner than told.
_PUSHBACK_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a request is sent again.

    Attributes:
        max_attempts: The first one included.
        first_backoff_seconds: The longest wait after the first failure; doubles with each one.
        max_backoff_seconds: No wait is longer, unless the server asks for it.
        max_tokens: Of the retry budget (gRFC A6, retryThrottling): while half of them or fewer are left,
            nothing is sent again but what the server itself asked to be.
        token_ratio: What a success gives back; a failure takes 1.

    Raises:
        ValueError: A value out of its range.
    """

    max_attempts: int = 20
    first_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 5.0
    max_tokens: int = 100
    token_ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts={self.max_attempts}: expected at least 1")
        if not 0 < self.first_backoff_seconds <= self.max_backoff_seconds:
            raise ValueError(
                f"first_backoff_seconds={self.first_backoff_seconds}: expected more than 0 and at most "
                f"max_backoff_seconds={self.max_backoff_seconds}"
            )
        if self.max_tokens < 1 or self.token_ratio <= 0:
            raise ValueError(
                f"max_tokens={self.max_tokens}, token_ratio={self.token_ratio}: expected at least 1 and more than 0"
            )

    def longest_backoff(self, attempt: int) -> float:
        """After the failure of that attempt, in seconds."""
        doublings = min(attempt - 1, 30)
        return min(self.max_backoff_seconds, self.first_backoff_seconds * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt ended.

    Attributes:
        code: The gRPC status.
        details: The sentence that came with it.
        trailers: Trailing metadata, pairs of key and value.
    """

    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, str | bytes], ...] = ()

    @classmethod
    def of(cls, error: Any) -> "Failure":
        """Of an error of a blocking or an asyncio call."""
        trailers: Iterable[Any] = error.trailing_metadata() or ()
        return cls(error.code(), error.details() or "", tuple((key, value) for key, value in trailers))


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The answer is final.

    Attributes:
        reason: Why it is not asked again although it could be; empty where asking again would not help.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Send it again after so many seconds."""

    seconds: float


class RetryBudget:
    """The token bucket of gRPC's retry throttling, of one client and all its calls; safe between threads.

    Args:
        policy: Size of the bucket, and what a success gives back.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._tokens = float(policy.max_tokens)
        self._lock = threading.Lock()

    @property
    def allows_retry(self) -> bool:
        """More than half is left."""
        return self._tokens > self._policy.max_tokens / 2

    def on_success(self) -> None:
        """A little comes back."""
        with self._lock:
            self._tokens = min(self._policy.max_tokens, self._tokens + self._policy.token_ratio)

    def on_failure(self) -> None:
        """One is spent."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)


def after_failure(
    failure: Failure, *, attempt: int, remaining_seconds: float, budget: RetryBudget, policy: RetryPolicy, dice: float
) -> RetryIn | GiveUp:
    """Decides after the failure of the given attempt (1 is the first).

    A server under pressure says when to come back (`grpc-retry-pushback-ms`, gRFC A6: negative or
    unreadable means never; else google.rpc.RetryInfo). It is never asked sooner, and the longer it
    refuses the later: at least an exponential backoff with full jitter (which alone spreads UNAVAILABLE and
    CANCELLED without a word). What the server paces costs no budget; what it does not, does. Without a word from it
    RESOURCE_EXHAUSTED is final: gRPC says so of a message that is too large. Never waits past the deadline.

    Args:
        failure: How the attempt ended.
        attempt: Number of attempts so far.
        remaining_seconds: Until the caller's deadline.
        budget: Of the client; charged here.
        policy: Limits and waits.
        dice: Uniform in [0, 1).
    """
    asked = asked_wait(failure.trailers)
    if failure.code not in _RETRYABLE or (asked is None and failure.code not in _RETRYABLE_UNTOLD):
        return GiveUp()
    if asked is None:
        budget.on_failure()
        if not budget.allows_retry:
            return GiveUp("too many requests of this client failed lately")
    elif asked < 0:
        return GiveUp("the server asks not to come back")
    if attempt >= policy.max_attempts:
        return GiveUp(f"no more than {policy.max_attempts} attempts are allowed")
    seconds = max((asked or 0.0) * (1 + _PUSHBACK_JITTER * dice), dice * policy.longest_backoff(attempt))
    if seconds >= remaining_seconds:
        return GiveUp(f"the next attempt would be in {seconds:.1f} s, {max(0.0, remaining_seconds):.1f} s are left")
    return RetryIn(seconds)


def asked_wait(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """What the server asks for, in seconds; negative means never, None that it says nothing."""
    said = dict(trailers)
    pushback = said.get(_PUSHBACK_KEY)
    if pushback is not None:
        try:
            return int(pushback) / 1000
        except ValueError:
            return -1.0
    details = said.get(_STATUS_KEY)
    return retry_delay_seconds(details) if isinstance(details, bytes) else None
