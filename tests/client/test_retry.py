"""When a client sends a request again."""

import grpc
import pytest
from sluice_client.retry import GiveUp, RetryIn, after_failure

OVERLOADED, GONE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE


def decide(
    code: grpc.StatusCode,
    *,
    pushback: str | None = None,
    attempt: int = 1,
    remaining: float = 60,
    dice: float = 0.5,
):
    trailers = [
        ("sluice-drain-ms", "9"),
        *([("grpc-retry-pushback-ms", pushback)] if pushback is not None else []),
    ]
    return after_failure(code, trailers, attempt=attempt, remaining_seconds=remaining, dice=dice)


def test_an_overloaded_server_says_when_to_come_back() -> None:
    assert decide(OVERLOADED, pushback="1500") == RetryIn(1.5)


def test_a_pushback_counts_before_the_backoff() -> None:
    assert decide(GONE, pushback="250", attempt=9) == RetryIn(0.25)


@pytest.mark.parametrize("pushback", ["-1", "soon", ""])
def test_a_negative_or_unreadable_pushback_means_never(pushback: str) -> None:
    assert decide(OVERLOADED, pushback=pushback) == GiveUp()


def test_an_overload_without_a_pushback_is_final() -> None:
    assert decide(OVERLOADED) == GiveUp()


def test_a_pod_that_went_away_is_tried_elsewhere_with_growing_patience() -> None:
    waits = [decide(GONE, attempt=n, dice=1.0).seconds for n in (1, 2, 3, 10)]
    assert waits == [0.1, 0.2, 0.4, 5.0]


def test_no_wait_reaches_past_the_callers_deadline() -> None:
    assert decide(OVERLOADED, pushback="1500", remaining=1.5) == GiveUp()


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL]
)
def test_any_other_answer_is_final(code: grpc.StatusCode) -> None:
    assert decide(code, pushback="10") == GiveUp()
