"""A load generator in a process of its own: closed loop (clients that wait) and open loop (arrivals that do not)."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc

_CONNECTIONS = 4
# Parameters of log-normal lengths, in tokens: (median, sigma, most).
MIXES = {"queries": (10, 0.4, 32), "products": (32, 0.6, 128), "passages": (100, 0.5, 256)}


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's fate.

    Attributes:
        sent_at: When it was due, not when it could be sent: waiting in the generator counts (no coordinated omission).
        seconds: Until the answer.
        code: Of gRPC.
        tokens: It asked for.
        promised_drain_ms: The server's estimate of its queue, from the trailers; None where there is none.
        server_seconds: Of these, between the server's own first and last look at the request.
    """

    sent_at: float
    seconds: float
    code: str
    tokens: int
    promised_drain_ms: float | None
    server_seconds: float | None


def requests(mix: str, count: int, *, texts: int = 1, seed: int = 7) -> list[pb.EmbedRequest]:
    """Requests of rows of ids, with lengths of the mix."""
    median, sigma, most = MIXES[mix]
    dice = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        lengths = np.clip(np.rint(median * np.exp(sigma * dice.standard_normal(texts))), 3, most).astype("<i4")
        ids = dice.integers(1000, 30_000, int(lengths.sum()), dtype="<i4")
        made.append(pb.EmbedRequest(token_ids=pb.TokenIds(ids=ids.tobytes(), lengths=lengths.tobytes())))
    return made


class Generator:
    """Sends requests to one server and keeps what became of them."""

    def __init__(self, target: str) -> None:
        # Options that differ keep gRPC from sharing one connection.
        self._channels = [
            grpc.aio.insecure_channel(target, options=[("bench.connection", place)]) for place in range(_CONNECTIONS)
        ]
        stubs = [embeddings_pb2_grpc.EmbeddingsStub(c) for c in self._channels]  # type: ignore[no-untyped-call]
        self._calls = [stub.Embed for stub in stubs]
        self.answers: list[Answer] = []

    async def closed_loop(self, made: Sequence[pb.EmbedRequest], *, clients: int, seconds: float) -> None:
        """Each client asks again as soon as it is answered."""
        end = time.monotonic() + seconds

        async def client(place: int) -> None:
            while time.monotonic() < end:
                await self._ask(made[place % len(made)], place, time.monotonic(), 60.0)
                place += clients

        await asyncio.gather(*(client(place) for place in range(clients)))

    async def open_loop(
        self, made: Sequence[pb.EmbedRequest], *, per_second: float, seconds: float, deadline_seconds: float
    ) -> None:
        """Poisson arrivals at a rate, whatever the server answers."""
        gaps = np.random.default_rng(3).exponential(1 / per_second, int(per_second * seconds))
        due, started, under_way = 0.0, time.monotonic(), set()
        for place, gap in enumerate(gaps):
            due += float(gap)
            wait = started + due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._ask(made[place % len(made)], place, started + due, deadline_seconds))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels:
            await channel.close(grace=None)

    async def _ask(self, request: pb.EmbedRequest, place: int, due: float, deadline_seconds: float) -> None:
        call = self._calls[place % len(self._calls)](request, timeout=deadline_seconds)
        code = (await call.code()).name
        trailers = dict(await call.trailing_metadata() or ())
        drain = trailers.get("sluice-drain-ms")
        server_seconds = (await call).timings.total_ms / 1000 if code == "OK" else None
        promised = None if drain is None else float(drain)
        tokens = len(request.token_ids.ids) // 4
        self.answers.append(Answer(due, time.monotonic() - due, code, tokens, promised, server_seconds))
