"""Who takes part, and the servers among them. Only who has its turn works; others are paused."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench import process
from bench.callers import Caller, Request
from bench.load import Answer, Generator
from bench.rounds import Turn, percentiles
from bench.workload import Rows

Encode = Callable[[Sequence[Rows]], list[Request]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One situation in which all are compared.

    Attributes:
        group: Cells of one group share a table.
        mix: Of lengths.
        texts: In each request.
        input: ids or texts.
        clients: That wait for their answers (closed loop).
        per_second: Requests that come whatever happens (open loop); None in a closed loop.
        deadline_seconds: Of each request.
        lead_seconds: Of the same load before what is measured, without a break: a queue of many clients takes so long
            to become what it stays. None where every turn begins with an empty one.
    """

    group: str
    mix: str
    texts: int = 1
    input: str = "ids"
    clients: int = 32
    per_second: float | None = None
    deadline_seconds: float = 60.0
    lead_seconds: float | None = None


class Contestant(Protocol):
    """Takes turns."""

    name: str

    async def turn(self, cell: Cell, work: Sequence[Rows], number: int, seconds: float) -> Turn:
        """Does what the cell asks for, for so long."""


@dataclass(slots=True)
class Server:
    """A server in a process of its own.

    Attributes:
        target: What its caller needs.
        encoders: What makes its requests, by kind of input.
        pid: None where it is not ours, as with TEI_URL.
        counted: Tokens and padding computed so far, where it says.
    """

    name: str
    target: str
    caller: Callable[[str], Caller]
    encoders: Mapping[str, Encode]
    pid: int | None = None
    counted: Callable[[], tuple[int, int]] | None = None
    _made: dict[tuple[int, str], list[Request]] = field(default_factory=dict)

    async def turn(self, cell: Cell, work: Sequence[Rows], number: int, seconds: float) -> Turn:
        """See Contestant."""
        made = self._requests(cell, work)
        self.wake()
        generator = Generator(self.target, self.caller)
        try:
            if cell.lead_seconds is None:
                await generator.closed_loop(made, clients=cell.clients, seconds=max(0.5, seconds / 4))
                generator.answers.clear()
            return await self._measured(generator, cell, made, number, seconds)
        finally:
            await generator.close()
            self.sleep()

    async def _measured(
        self, generator: Generator, cell: Cell, made: Sequence[Request], number: int, seconds: float
    ) -> Turn:
        lead, seconds_said = cell.lead_seconds, None
        # Asked beforehand: a load that goes on does not wait for the answer.
        counted = self.counted() if self.counted else None
        load = asyncio.create_task(_load(generator, cell, made, seconds + (lead or 0.0)))
        if lead is not None:
            await asyncio.wait({load}, timeout=lead)
        before = self._cpu()
        own_cpu, began = time.process_time(), time.monotonic()
        await asyncio.wait({load}, timeout=None if lead is None else seconds)
        own_cpu, ended = time.process_time() - own_cpu, time.monotonic()
        after = self._cpu()
        await load
        answers = generator.answers
        if lead is not None:
            answers, seconds_said = between(answers, began, ended), ended - began
        return summary(
            answers,
            cell,
            self.name,
            number,
            seconds=seconds_said,
            padding=self._padding(made, counted),
            cpu_seconds=None if before is None or after is None else after - before,
            generator_cpu_seconds=own_cpu,
            rss_mib=None if self.pid is None else process.rss_mib(self.pid),
        )

    def wake(self) -> None:
        """Lets it work."""
        if self.pid is not None:
            process.resume(self.pid)

    def sleep(self) -> None:
        """Keeps it from taking CPU from who has its turn: some poll while they have nothing to do."""
        if self.pid is not None:
            process.pause(self.pid)

    def _cpu(self) -> float | None:
        return None if self.pid is None else process.cpu_seconds(self.pid)

    def _padding(self, made: Sequence[Request], before: tuple[int, int] | None) -> float | None:
        if self.counted is not None and before is not None:
            tokens, padded = (new - old for new, old in zip(self.counted(), before, strict=True))
            return (tokens + padded) / tokens if tokens else None
        padded = sum(request.padded_tokens for request in made)
        return 1 + padded / sum(request.tokens for request in made) if padded else None

    def _requests(self, cell: Cell, work: Sequence[Rows]) -> list[Request]:
        key = (id(work), cell.input)
        if key not in self._made:
            # One cell at a time: a thousand requests of many texts are not kept for nothing.
            self._made = {key: self.encoders[cell.input](work)}
        return self._made[key]


async def _load(generator: Generator, cell: Cell, made: Sequence[Request], seconds: float) -> None:
    if cell.per_second is None:
        await generator.closed_loop(made, clients=cell.clients, seconds=seconds)
    else:
        await generator.open_loop(
            made, per_second=cell.per_second, seconds=seconds, deadline_seconds=cell.deadline_seconds
        )


def between(answers: Sequence[Answer], began: float, ended: float) -> list[Answer]:
    """Those that came between two moments, whenever they were asked for."""
    return [one for one in answers if began <= one.sent_at + one.seconds < ended]


def summary(
    answers: Sequence[Answer], cell: Cell, name: str, number: int, *, seconds: float | None = None, **measured: Any
) -> Turn:
    """One turn's figures from its answers.

    Where nothing else is said, seconds run until the last answer in a closed loop, so that all work and all time count;
    in an open loop as long as requests came, as the load is given.
    """
    good = [one for one in answers if one.code == "OK"]
    started = min((one.sent_at for one in answers), default=0.0)
    ended = max((one.sent_at + one.seconds for one in answers), default=0.0)
    if seconds is None:
        seconds = ended - started if cell.per_second is None else len(answers) / cell.per_second
    in_time = sum(one.seconds <= cell.deadline_seconds for one in good)
    return Turn(
        name, number, max(seconds, 1e-9), len(good), sum(one.tokens for one in good),
        dict(Counter(one.code for one in answers)), percentiles([1000 * one.seconds for one in good]),
        in_time=None if cell.per_second is None else in_time, offered=cell.per_second, **measured,
    )  # fmt: skip
