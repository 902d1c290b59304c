"""A load generator in a process of its own: closed loop (clients that wait) and open loop (arrivals that do not).

It shares the machine with what it measures, so it does little: requests are bytes made beforehand, answers are not
parsed, and what is needed of them stands in the trailers.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sluice.v1 import embeddings_pb2 as pb

from bench import callers
from bench.callers import Caller, Reply, Request

# Where several arrivals fall within so long, they are sent together, the first of them so late: to wake for each of a
# thousand a second takes twice as much of the cores from what is measured. Each is counted from when it was due.
_TICK_SECONDS = 0.002
# A refused client that was told nothing comes back after so long, as a patient one would.
_BACK_OFF_MS = 50.0
# Parameters of log-normal lengths, in tokens: (share, median, sigma, most) of each kind of text in the mix.
MIXES = {
    "queries": ((1.0, 10, 0.4, 32),),
    "products": ((1.0, 32, 0.6, 128),),
    "passages": ((1.0, 100, 0.5, 256),),
    "bimodal": ((0.8, 12, 0.4, 32), (0.2, 150, 0.4, 256)),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's fate.

    Attributes:
        sent_at: When it was due, not when it could be sent: waiting in the generator counts (no coordinated omission).
        seconds: Until the answer.
        tokens: It asked for.
        reply: What the server said.
    """

    sent_at: float
    seconds: float
    tokens: int
    reply: Reply

    @property
    def code(self) -> str:
        """Of gRPC."""
        return self.reply.code


def requests(
    mix: str, count: int, *, texts: int = 1, seed: int = 7, priority: "pb.Priority | None" = None
) -> list[Request]:
    """Requests of rows of ids, with lengths of the mix."""
    dice = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        lengths = draw_lengths(mix, texts, dice)
        ids = dice.integers(1000, 30_000, int(lengths.sum()), dtype="<i4")
        rows = pb.TokenIds(ids=ids.tobytes(), lengths=lengths.tobytes())
        message = pb.EmbedRequest(token_ids=rows, priority=priority or pb.PRIORITY_UNSPECIFIED)
        made.append(Request((message.SerializeToString(),), int(lengths.sum())))
    return made


def draw_lengths(mix: str, count: int, dice: np.random.Generator) -> Any:
    """Lengths of texts in tokens, special ones included: int32 (count,)."""
    kinds = MIXES[mix]
    chosen = dice.choice(len(kinds), size=count, p=[kind[0] for kind in kinds])
    _, median, sigma, most = np.array(kinds)[chosen].T
    return np.clip(np.rint(median * np.exp(sigma * dice.standard_normal(count))), 3, most).astype("<i4")


class Generator:
    """Sends requests to one server and keeps what became of them."""

    def __init__(self, target: str, caller: Callable[[str], Caller] = callers.sluice) -> None:
        self._caller = caller(target)
        self.answers: list[Answer] = []

    async def closed_loop(
        self, made: Sequence[Request], *, clients: int, seconds: float, cancel_share: float = 0.0
    ) -> None:
        """Each client asks again as soon as it is answered, or when a refusal says so; some leave before."""
        end = time.monotonic() + seconds
        dice = np.random.default_rng(5)

        async def client(place: int) -> None:
            while time.monotonic() < end:
                leaves = dice.random() < cancel_share
                patience = float(dice.uniform(0.001, 0.3)) if leaves else 60.0
                reply = await self._ask(made[place % len(made)], place, time.monotonic(), patience, leaves=leaves)
                await asyncio.sleep(min(_pause_seconds(reply), max(0.0, end - time.monotonic())))
                place += clients

        await asyncio.gather(*(client(place) for place in range(clients)))

    async def open_loop(
        self, made: Sequence[Request], *, per_second: float, seconds: float, deadline_seconds: float
    ) -> None:
        """Poisson arrivals at a rate, whatever the server answers."""
        gaps = np.random.default_rng(3).exponential(1 / per_second, int(per_second * seconds))
        due, started, under_way = 0.0, time.monotonic(), set()
        tick = _TICK_SECONDS if per_second * _TICK_SECONDS >= 1 else 0.0
        for place, gap in enumerate(gaps):
            due += float(gap)
            wait = started + due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(max(wait, tick))
            task = asyncio.create_task(self._ask(made[place % len(made)], place, started + due, deadline_seconds))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def close(self) -> None:
        """Ends the connections."""
        await self._caller.close()

    async def _ask(
        self, request: Request, place: int, due: float, patience_seconds: float, *, leaves: bool = False
    ) -> Reply:
        """Sends one request and notes what became of it."""
        reply = await self._caller.ask(
            request,
            place,
            # A caller that goes away, not one whose deadline the server knows.
            timeout_seconds=60.0 if leaves else patience_seconds,
            leave_after_seconds=patience_seconds if leaves else None,
        )
        self.answers.append(Answer(due, time.monotonic() - due, request.tokens, reply))
        return reply


def _pause_seconds(reply: Reply) -> float:
    """Of a client that asks again, or something else."""
    if reply.code in ("OK", "CANCELLED"):
        return 0.0
    pushback_ms = reply.pushback_ms
    return (_BACK_OFF_MS if pushback_ms is None else max(0.0, pushback_ms)) / 1000
