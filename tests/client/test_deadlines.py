"""A call ends in time, and says what it waited for."""

import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from sluice_client import DeadlineError, EmbeddingClient, UnavailableError

from tests.client.conftest import Script, numbers


@pytest.fixture
def hanging() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


async def test_a_server_that_never_answers_ends_the_call_at_its_deadline(embed: Any, hanging: str) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=rf"^{hanging}: DEADLINE_EXCEEDED after 1 attempt: no answer within 0\.5 s"):
        await embed(hanging, ["a"], deadline_seconds=0.5)
    assert time.monotonic() - started < 5


async def test_an_address_where_nobody_listens_is_told_with_the_reason(embed: Any, nobody: str) -> None:
    with pytest.raises(UnavailableError, match=r"no server was reached within 0\.5 s: .*Connection refused") as refused:
        await embed(nobody, ["a"], deadline_seconds=0.5)
    assert refused.value.target == nobody
    assert "kubectl get embeddingservices" in refused.value.hint


async def test_a_name_that_does_not_exist_is_told_with_the_reason(embed: Any) -> None:
    with pytest.raises(UnavailableError, match=r"no-such-service\.invalid"):
        await embed("dns:///no-such-service.invalid:50051", ["a"], deadline_seconds=1)


async def test_one_deadline_counts_for_all_parts_together(embed: Any, script: Script) -> None:
    """The server sees ever less time left; the parts that it holds too long end with the call."""
    left: list[float] = []

    def behave(texts: Any, _before: int, context: grpc.ServicerContext) -> None:
        left.append(context.time_remaining())
        if texts[0] == "8":
            script.block_until_the_caller_leaves(context)

    script.behave = behave
    with pytest.raises(DeadlineError, match=r"inputs 8 to 11: no answer within \d\.\d s"):
        await embed(script.target, numbers(40), deadline_seconds=1.5, max_in_flight=1)
    assert len(left) == 3
    assert all(later <= earlier + 0.01 for earlier, later in itertools.pairwise(left))
    assert left[0] <= 1.5


def test_a_call_may_have_a_deadline_of_its_own(script: Script) -> None:
    left: list[float] = []
    script.behave = lambda _texts, _before, context: left.append(context.time_remaining())
    with EmbeddingClient(script.target, deadline_seconds=1000) as client:
        client.embed(["1"], deadline_seconds=5)
        client.embed(["1"])
    assert left[0] <= 5
    assert left[1] > 900


def test_a_stream_has_a_deadline_for_each_of_its_requests(script: Script) -> None:
    left: list[float] = []
    script.behave = lambda _texts, _before, context: left.append(context.time_remaining())
    with EmbeddingClient(script.target, max_in_flight=1) as client:
        for _ in client.embed_iter(numbers(40), deadline_seconds=5):
            time.sleep(0.02)  # the consumer's own time does not count
    assert min(left) > 4.5


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_refused(script: Script, seconds: float) -> None:
    with EmbeddingClient(script.target) as client, pytest.raises(ValueError, match=f"deadline_seconds={seconds}"):
        client.embed(["1"], deadline_seconds=seconds)
