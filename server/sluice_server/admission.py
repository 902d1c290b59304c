"""Whether to take a request, decided before any work is queued. Pure: values in, a verdict with its reason out."""

from dataclasses import dataclass
from typing import cast

from sluice_server.requests import Priority

# Under pressure batch work is refused first: it may fill only so much of each limit.
_BATCH_SHARE = 0.5
# What is admitted must be done in time although the estimate errs: at three times capacity, one text a request, a
# tenth of the answers came after the limit at 0.75, and the queue is long enough at this to keep every batch full.
SURE_SHARE = 0.65
# A caller told to come back finds room: this share of the limit is drained by then.
_RETRY_AT_SHARE = 0.7
_MIN_RETRY_MS = 10
# What a request waited before is told where it is more than the server's own work of a moment.
_WORTH_TELLING_MS = 10.0
# Requests that take less than this share of what is allowed count alike. Of a queue that is always full, short ones
# would take each gap before it is large enough for a long one: at three times capacity, 74 of 100 texts of less than 16
# tokens were admitted, and one of 100 beyond 128.
_EQUAL_SHARE = 0.1
# However long calls wait before the server sees them, it goes on with this share of its limit: an empty queue behind a
# long one would leave the device idle.
_LEAST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What the queue may hold.

    Attributes:
        max_drain_ms: Longest time from a request's arrival until all is computed; admission fills SURE_SHARE of it.
            None where throughput backpressure is off.
        max_queued_tokens: Most tokens reserved at once; None where throughput backpressure is off.
    """

    max_drain_ms: float | None
    max_queued_tokens: int | None


@dataclass(frozen=True, slots=True)
class Load:
    """What is queued and running now.

    Attributes:
        reserved_tokens: Admitted and not yet computed.
        drain_ms: Time until they are computed; None before anything was measured.
        ahead_ms: Of it, before the request's own turn: batch work does not hold up interactive work.
        own_ms: Time that the request itself takes; None before anything was measured.
        filling_ms: By which later arrivals may lengthen the request's batch.
        work_ms: Of `own_ms`, what the request adds to a batch of others; None before anything was measured.
    """

    reserved_tokens: int
    drain_ms: float | None
    ahead_ms: float | None
    own_ms: float | None
    filling_ms: float = 0.0
    work_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Admit:
    """Take it, and reserve its tokens."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not take it.

    Attributes:
        reason: drain_limit, token_limit or deadline: a label of the metrics.
        message: For the caller.
        retry_after_ms: When there should be room; None where coming back does not help.
    """

    reason: str
    message: str
    retry_after_ms: int | None


def decide(
    tokens: int,
    load: Load,
    limits: AdmissionLimits,
    *,
    priority: Priority,
    remaining_ms: float | None,
    waited_ms: float | None = None,
) -> Admit | Refuse:
    """Admits a request if it would be computed in time and within the limits.

    An idle server takes whatever a request may hold, whatever it expects: no valid request is refused for
    ever, and an estimate that is far too long is corrected by the work that it would else have refused.

    Args:
        tokens: Of the request, estimated where it holds texts.
        load: What is queued now.
        limits: What may be.
        priority: Batch work may fill half of each limit.
        remaining_ms: Until the caller's deadline; None where there is none.
        waited_ms: From when the request came until the server saw it; None while unknown.
    """
    if load.reserved_tokens == 0:
        return Admit()
    done_ms = _sum(load.ahead_ms, load.own_ms, load.filling_ms)
    if remaining_ms is not None and done_ms is not None and done_ms > SURE_SHARE * remaining_ms:
        return Refuse(
            "deadline",
            f"needs about {done_ms:.0f} ms and a margin, {remaining_ms:.0f} ms are left of the deadline",
            None,
        )
    share = _BATCH_SHARE if priority is Priority.BATCH else 1.0
    if limits.max_drain_ms is not None and load.drain_ms is not None and load.own_ms is not None:
        left_ms = max(limits.max_drain_ms - (waited_ms or 0.0), _LEAST_SHARE * limits.max_drain_ms)
        allowed_ms = share * SURE_SHARE * left_ms
        counted_ms = max(load.own_ms, _EQUAL_SHARE * allowed_ms)
        completion_ms = load.drain_ms + counted_ms
        if completion_ms > allowed_ms:
            return Refuse(
                "drain_limit",
                f"the queue needs {load.drain_ms:.0f} ms to drain and this request counts as {counted_ms:.0f} ms, "
                f"{allowed_ms:.0f} ms are allowed" + _after(waited_ms),
                _retry_after_ms(completion_ms, allowed_ms),
            )
    if limits.max_queued_tokens is not None and load.reserved_tokens + tokens > share * limits.max_queued_tokens:
        return Refuse(
            "token_limit",
            f"{load.reserved_tokens} tokens are queued and {tokens} asked, "
            f"{share * limits.max_queued_tokens:.0f} are allowed",
            _retry_after_ms(load.drain_ms or 0.0, 0.0),
        )
    return Admit()


def _sum(*parts: float | None) -> float | None:
    return None if None in parts else sum(cast("tuple[float, ...]", parts))


def _after(waited_ms: float | None) -> str:
    """What else the allowed time depends on, in words."""
    if waited_ms is None or waited_ms < _WORTH_TELLING_MS:
        return ""
    return f" to one that waited {waited_ms:.0f} ms to be looked at"


def _retry_after_ms(expected_ms: float, allowed_ms: float) -> int:
    return max(_MIN_RETRY_MS, round(expected_ms - _RETRY_AT_SHARE * allowed_ms))
