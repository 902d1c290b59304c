"""Whether and when to send a request again. Pure: the clock and the dice are parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 5.0
_PUSHBACK_KEY = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The answer is final."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Send it again after so many seconds."""

    seconds: float


def after_failure(
    code: grpc.StatusCode,
    trailers: Iterable[Any],
    *,
    attempt: int,
    remaining_seconds: float,
    dice: float,
) -> RetryIn | GiveUp:
    """Decides after the failure of the given attempt (1 is the first).

    A server under pressure says when to come back (`grpc-retry-pushback-ms`, gRFC A6: negative or
    unreadable means never); without a word from it, UNAVAILABLE backs off exponentially with full
    jitter, and everything else is final. Never waits past the caller's deadline.

    Args:
        code: What the attempt ended with.
        trailers: Its trailing metadata, pairs of key and value.
        attempt: Number of attempts so far.
        remaining_seconds: Until the caller's deadline.
        dice: Uniform in [0, 1).
    """
    if code not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        return GiveUp()
    pushback = next((value for key, value in trailers if key == _PUSHBACK_KEY), None)
    if pushback is not None:
        seconds = _seconds(pushback)
        if seconds is None:
            return GiveUp()
    elif code is grpc.StatusCode.UNAVAILABLE:
        seconds = dice * min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1))
    else:
        return GiveUp()
    return RetryIn(seconds) if seconds < remaining_seconds else GiveUp()


def _seconds(pushback: str | bytes) -> float | None:
    try:
        milliseconds = int(pushback)
    except ValueError:
        return None
    return milliseconds / 1000 if milliseconds >= 0 else None
