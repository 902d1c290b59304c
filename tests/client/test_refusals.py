"""What the clients make of a server's answers, through a real channel: retries, final answers, and the parts beside."""

import threading
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from sluice.v1 import embeddings_pb2 as pb
from sluice_client import (
    EmbeddingClient,
    EmbeddingError,
    InvalidRequestError,
    OverloadedError,
    RetryPolicy,
    UnauthenticatedError,
    UnavailableError,
)

from tests.client.conftest import Script, numbers

FULL, GONE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, details: str, **trailers: str | bytes) -> None:
    context.set_trailing_metadata(tuple((key.replace("_", "-"), value) for key, value in trailers.items()))
    context.abort(code, details)


async def test_refused_parts_are_sent_again_and_the_others_are_not(embed: Any, script: Script) -> None:
    def behave(texts: Any, before: int, context: Any) -> None:
        if texts[0] in ("4", "12") and before < 2:
            refuse(context, FULL, "full", grpc_retry_pushback_ms="5")

    script.behave = behave
    rows = await embed(script.target, numbers(20))
    assert rows[:, 0].tolist() == list(range(20))
    sent = {texts[0]: script.seen.count(texts) for texts in script.seen}
    assert sent == {"0": 1, "4": 3, "8": 1, "12": 3, "16": 1}


async def test_retry_info_is_honoured_where_there_is_no_pushback(embed: Any, script: Script) -> None:
    status = status_pb2.Status(code=8, message="full")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=5_000_000)))

    def behave(_texts: Any, before: int, context: Any) -> None:
        if not before:
            refuse(context, FULL, "full", grpc_status_details_bin=status.SerializeToString())

    script.behave = behave
    rows = await embed(script.target, numbers(4))
    assert rows[:, 0].tolist() == [0, 1, 2, 3]
    assert len(script.seen) == 2


async def test_the_server_is_told_how_often_a_part_was_refused_before(embed: Any, script: Script) -> None:
    told: list[str | None] = []

    def behave(_texts: Any, before: int, context: Any) -> None:
        told.append(dict(context.invocation_metadata()).get("sluice-refusals"))
        if before < 2:
            refuse(context, FULL, "full", grpc_retry_pushback_ms="1")

    script.behave = behave
    await embed(script.target, numbers(4))
    assert told == [None, "1", "2"]


async def test_a_pod_that_went_away_is_asked_again(embed: Any, script: Script) -> None:
    script.behave = lambda _texts, before, context: refuse(context, GONE, "gone") if before < 2 else None
    assert (await embed(script.target, numbers(4))).shape == (4, 2)
    assert len(script.seen) == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.INTERNAL, EmbeddingError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError),
    ],
)
async def test_a_final_answer_ends_the_call_at_once(
    embed: Any, script: Script, code: grpc.StatusCode, kind: type[EmbeddingError]
) -> None:
    script.behave = lambda _texts, _before, context: refuse(context, code, "the reason")
    with pytest.raises(
        kind, match=f"^{script.target}: {code.name} after 1 attempt, inputs 0 to 3: the reason$"
    ) as said:
        await embed(script.target, numbers(4))
    assert type(said.value) is kind
    assert len(script.seen) == 1


async def test_one_failed_part_cancels_the_others(embed: Any, script: Script) -> None:
    all_there = threading.Barrier(4)

    def behave(texts: Any, _before: int, context: Any) -> None:
        all_there.wait(10)
        if texts[0] == "8":
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "input 1 is bad")
        script.block_until_the_caller_leaves(context)

    script.behave = behave
    with pytest.raises(InvalidRequestError, match="inputs 8 to 11: input 9 is bad"):
        await embed(script.target, numbers(16))
    for _ in range(3):
        assert script.cancelled.acquire(timeout=10)
    assert len(script.seen) == 4


async def test_attempts_are_bounded_and_counted(embed: Any, script: Script) -> None:
    script.behave = lambda _texts, _before, context: refuse(context, FULL, "full", grpc_retry_pushback_ms="1")
    policy = RetryPolicy(max_attempts=3, first_backoff_seconds=0.001)
    with pytest.raises(OverloadedError, match=r"after 3 attempts.*full \(no more than 3 attempts are allowed\)"):
        await embed(script.target, numbers(4), retry_policy=policy)
    assert len(script.seen) == 3


async def test_a_server_that_asks_not_to_come_back_is_left_alone(embed: Any, script: Script) -> None:
    script.behave = lambda _texts, _before, context: refuse(context, FULL, "full", grpc_retry_pushback_ms="-1")
    with pytest.raises(OverloadedError, match="the server asks not to come back"):
        await embed(script.target, numbers(4))
    assert len(script.seen) == 1


async def test_a_pushback_past_the_deadline_ends_the_call_before_it(embed: Any, script: Script) -> None:
    script.behave = lambda _texts, _before, context: refuse(context, FULL, "full", grpc_retry_pushback_ms="60000")
    with pytest.raises(OverloadedError, match=r"full \(the next attempt would be in 6\d\.\d s, .* s are left\)"):
        await embed(script.target, numbers(4), deadline_seconds=20)


def test_a_client_whose_requests_fail_soon_sends_each_only_once(script: Script) -> None:
    """The budget is the client's: what one call spent, the next one lacks."""
    script.behave = lambda _texts, _before, context: refuse(context, GONE, "gone")
    policy = RetryPolicy(max_attempts=4, first_backoff_seconds=0.001, max_tokens=10)
    with EmbeddingClient(script.target, retry_policy=policy) as client:
        for _ in range(4):
            with pytest.raises(UnavailableError):
                client.embed(["1"])
        sent = len(script.seen)
        with pytest.raises(UnavailableError, match="too many requests of this client failed lately") as refused:
            client.embed(["1"])
    assert refused.value.attempts == 1
    assert len(script.seen) == sent + 1
    assert sent < 4 * 4


def test_limits_are_asked_of_the_service_once(script: Script) -> None:
    script.info.max_inputs_per_request = 3
    with EmbeddingClient(script.target, max_in_flight=1) as client:
        client.embed(numbers(7))
        client.embed(numbers(7))
    assert [len(texts) for texts in script.seen] == [3, 3, 1] * 2
    assert script.infos == 1


async def test_a_service_that_changes_its_model_in_the_middle_is_noticed(embed: Any, script: Script) -> None:
    def alter(texts: Any, reply: pb.EmbedResponse) -> None:
        if texts[0] == "4":
            reply.embeddings.CopyFrom(pb.Tensor(data=bytes(4 * 4 * 3), shape=[4, 3], dtype=pb.DATA_TYPE_FLOAT32))

    script.alter = alter
    with pytest.raises(EmbeddingError, match="answers of 2 and of 3 dimensions: the service changed its model"):
        await embed(script.target, numbers(8))


async def test_a_reply_of_another_length_is_no_answer(embed: Any, script: Script) -> None:
    def alter(_texts: Any, reply: pb.EmbedResponse) -> None:
        reply.embeddings.CopyFrom(pb.Tensor(data=bytes(4 * 3 * 2), shape=[3, 2], dtype=pb.DATA_TYPE_FLOAT32))

    script.alter = alter
    with pytest.raises(EmbeddingError, match=r"INTERNAL.*the reply has the shape \(3, 2\).*4 inputs were asked"):
        await embed(script.target, numbers(4))
