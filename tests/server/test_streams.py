"""EmbedStream: replies as they finish, and no more read than is answered."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server.rpc.embeddings import EmbeddingsServicer

from tests.server.conftest import RunningServer

WINDOW = 32


def asked(name: str, text: str, count: int = 1, **options: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(request_id=name, texts=pb.Texts(values=[text] * count), **options)


def test_a_short_request_is_answered_before_a_long_one_of_batch_work_that_came_first(minilm: RunningServer) -> None:
    long = asked("long", "a rather long text " * 50, 64, priority=pb.PRIORITY_BATCH)
    with minilm.channel() as channel:
        stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
        answers = [one.request_id for one in stub.EmbedStream(iter([long, asked("short", "a word")]), timeout=60)]
    assert answers == ["short", "long"]


class Call:
    """What the servicer asks of a call that has no deadline and says nothing."""

    def waited_ms(self) -> float:
        return 0.0

    def time_remaining(self) -> None:
        return None

    def invocation_metadata(self) -> tuple[()]:
        return ()


def test_a_caller_who_does_not_read_is_not_read_from_either(minilm: RunningServer) -> None:
    taken: list[int] = []
    full = asyncio.Event()

    async def requests() -> AsyncIterator[pb.EmbedRequest]:
        for number in range(1000):
            taken.append(number)
            if len(taken) == WINDOW:
                full.set()
            yield asked(str(number), "a word")

    async def read_one_answer() -> int:
        servicer = EmbeddingsServicer(minilm.server.service, None)
        answers = servicer.EmbedStream(requests(), Call())  # type: ignore[arg-type]
        await anext(answers)
        # Whatever was taken is computed; only answers that are read would make room for more.
        await asyncio.wait_for(full.wait(), 30)
        await minilm.server.engine.wait_idle()
        read = len(taken)
        await answers.aclose()
        return read

    read = asyncio.run_coroutine_threadsafe(read_one_answer(), minilm.loop).result(timeout=60)
    assert WINDOW <= read <= WINDOW + 2
