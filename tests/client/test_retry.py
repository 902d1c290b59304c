"""When a client sends a request again."""

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from sluice_client.retry import Failure, GiveUp, RetryBudget, RetryIn, RetryPolicy, after_failure, asked_wait

OVERLOADED, GONE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
POLICY = RetryPolicy(max_attempts=9, max_tokens=10, token_ratio=0.5)


def decide(
    code: grpc.StatusCode,
    *,
    pushback: str | None = None,
    attempt: int = 1,
    remaining: float = 60,
    dice: float = 0.0,
    budget: RetryBudget | None = None,
) -> RetryIn | GiveUp:
    trailers = [("sluice-drain-ms", "9"), *([("grpc-retry-pushback-ms", pushback)] if pushback is not None else [])]
    return after_failure(
        Failure(code, "", tuple(trailers)),
        attempt=attempt,
        remaining_seconds=remaining,
        budget=budget or RetryBudget(POLICY),
        policy=POLICY,
        dice=dice,
    )


def status_with(*details: object) -> bytes:
    status = status_pb2.Status(code=8, message="full")
    for detail in details:
        status.details.add().Pack(detail)
    return status.SerializeToString()


def test_an_overloaded_server_says_when_to_come_back() -> None:
    assert decide(OVERLOADED, pushback="1500") == RetryIn(1.5)


def test_a_pushback_counts_before_the_backoff() -> None:
    assert decide(GONE, pushback="250") == RetryIn(0.25)


@given(milliseconds=st.integers(0, 5000), attempt=st.integers(1, 8), dice=st.floats(0, 1, exclude_max=True))
def test_nobody_comes_back_sooner_than_told_nor_later_than_a_tenth_or_the_backoff(
    milliseconds: int, attempt: int, dice: float
) -> None:
    verdict = decide(OVERLOADED, pushback=str(milliseconds), attempt=attempt, dice=dice)
    assert isinstance(verdict, RetryIn)
    asked = milliseconds / 1000
    assert asked <= verdict.seconds <= max(1.1 * asked, POLICY.longest_backoff(attempt))


def test_a_server_that_refuses_again_and_again_is_asked_ever_more_rarely() -> None:
    waits = [decide(OVERLOADED, pushback="10", attempt=n, dice=0.999) for n in (1, 3, 6)]
    assert [round(w.seconds, 1) for w in waits if isinstance(w, RetryIn)] == [0.1, 0.4, 3.2]


@pytest.mark.parametrize("pushback", ["-1", "soon", ""])
def test_a_negative_or_unreadable_pushback_means_never(pushback: str) -> None:
    assert decide(OVERLOADED, pushback=pushback) == GiveUp("the server asks not to come back")


def test_an_overload_without_a_word_is_final_as_grpc_says_it_of_a_message_too_large() -> None:
    assert decide(OVERLOADED) == GiveUp()


def test_retry_info_counts_where_there_is_no_pushback() -> None:
    info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000))
    details = status_with(error_details_pb2.ErrorInfo(reason="load"), info)
    assert asked_wait([("grpc-status-details-bin", details)]) == 2.5
    assert asked_wait([("grpc-status-details-bin", details), ("grpc-retry-pushback-ms", "40")]) == 0.04


@pytest.mark.parametrize(
    "details", [b"\xff\xff", status_with(), status_with(any_pb2.Any()), status_with(error_details_pb2.ErrorInfo())]
)
def test_details_without_retry_info_say_nothing(details: bytes) -> None:
    assert asked_wait([("grpc-status-details-bin", details)]) is None


def test_a_pod_that_went_away_is_tried_elsewhere_with_growing_patience() -> None:
    waits = [decide(GONE, attempt=n, dice=0.9999) for n in (1, 2, 3, 8)]
    assert [round(w.seconds, 2) for w in waits if isinstance(w, RetryIn)] == [0.1, 0.2, 0.4, 5.0]


def test_a_call_that_grpcs_server_threw_away_before_it_was_begun_is_sent_again() -> None:
    waits = [decide(grpc.StatusCode.CANCELLED, attempt=n, dice=0.9999) for n in (1, 2, 3)]
    assert [round(w.seconds, 2) for w in waits if isinstance(w, RetryIn)] == [0.1, 0.2, 0.4]


def test_attempts_are_bounded() -> None:
    assert isinstance(decide(GONE, attempt=8), RetryIn)
    assert decide(GONE, attempt=9) == GiveUp("no more than 9 attempts are allowed")
    assert decide(OVERLOADED, pushback="1", attempt=9) == GiveUp("no more than 9 attempts are allowed")


def test_no_wait_reaches_past_the_callers_deadline() -> None:
    assert decide(OVERLOADED, pushback="1500", remaining=1.5) == GiveUp(
        "the next attempt would be in 1.5 s, 1.5 s are left"
    )


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAUTHENTICATED,
    ],
)
def test_any_other_answer_is_final(code: grpc.StatusCode) -> None:
    assert decide(code, pushback="10") == GiveUp()


def test_a_client_whose_requests_mostly_fail_stops_sending_them_again() -> None:
    budget = RetryBudget(POLICY)
    verdicts = [decide(GONE, budget=budget) for _ in range(6)]
    assert [type(v) for v in verdicts] == [RetryIn] * 4 + [GiveUp] * 2
    assert verdicts[-1] == GiveUp("too many requests of this client failed lately")


def test_successes_fill_the_budget_again() -> None:
    budget = RetryBudget(POLICY)
    for _ in range(6):
        decide(GONE, budget=budget)
    for _ in range(6):
        budget.on_success()
    assert isinstance(decide(GONE, budget=budget), RetryIn)


def test_what_the_server_paces_itself_costs_no_budget() -> None:
    budget = RetryBudget(POLICY)
    assert all(isinstance(decide(OVERLOADED, pushback="10", budget=budget), RetryIn) for _ in range(50))
    assert budget.allows_retry


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"first_backoff_seconds": 0},
        {"first_backoff_seconds": 9, "max_backoff_seconds": 5},
        {"max_tokens": 0},
        {"token_ratio": 0},
    ],
)
def test_a_policy_that_cannot_work_names_its_value(wrong: dict[str, float]) -> None:
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=f"{name}={wrong[name]}"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
