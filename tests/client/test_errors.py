"""What a caller can catch, and what it reads there."""

import pickle

import grpc
import pytest
from sluice_client import DeadlineError, EmbeddingError, InvalidRequestError, OverloadedError, UsageError
from sluice_client.errors import class_of


def test_an_error_says_where_what_how_often_and_which_inputs() -> None:
    error = OverloadedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", 5, "svc:50051", range(64, 128))
    assert str(error) == "svc:50051: RESOURCE_EXHAUSTED after 5 attempts, inputs 64 to 127: the queue is full"
    one = EmbeddingError(grpc.StatusCode.INTERNAL, "broken", 1, "svc:50051", range(3, 4))
    assert str(one) == "svc:50051: INTERNAL after 1 attempt, input 3: broken"


def test_an_error_that_never_left_the_process_has_no_status() -> None:
    assert str(UsageError(None, "the client is closed", 0, "svc:50051")) == "svc:50051: the client is closed"


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_has_its_class_and_a_hint(code: grpc.StatusCode) -> None:
    assert issubclass(class_of(code), EmbeddingError)
    assert class_of(code).hint


def test_who_knows_only_pythons_own_errors_catches_them_by_those() -> None:
    assert issubclass(DeadlineError, TimeoutError)
    assert issubclass(InvalidRequestError, ValueError)
    assert issubclass(UsageError, RuntimeError)


def test_an_error_passes_between_processes_whole() -> None:
    error = OverloadedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 5, "svc:50051", range(2))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.inputs) == (type(error), str(error), range(2))
