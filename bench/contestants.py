"""Who takes part: servers asked over the network, and bare engines. Only who has its turn works; others are paused."""

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench import process
from bench.callers import Caller, Request
from bench.load import Answer, Generator
from bench.rounds import Turn, percentiles
from bench.workload import Rows

# A model may be compiled first, for as long as bench/engines/packed.py waits for it.
_START_SECONDS = 660
_REPLY_SECONDS = 120
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
    """

    group: str
    mix: str
    texts: int = 1
    input: str = "ids"
    clients: int = 32
    per_second: float | None = None
    deadline_seconds: float = 60.0


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
            run_up = max(0.5, seconds / 4)
            await generator.closed_loop(made, clients=min(cell.clients, 32), seconds=run_up)
            if cell.clients > 32:  # noqa: PLR2004 - the connections are there; the queue has to be, too
                await generator.closed_loop(made, clients=cell.clients, seconds=run_up)
            generator.answers.clear()
            return await self._measured(generator, cell, made, number, seconds)
        finally:
            await generator.close()
            self.sleep()

    async def _measured(
        self, generator: Generator, cell: Cell, made: Sequence[Request], number: int, seconds: float
    ) -> Turn:
        before, counted = self._cpu(), self.counted() if self.counted else None
        own_cpu = time.process_time()
        if cell.per_second is None:
            await generator.closed_loop(made, clients=cell.clients, seconds=seconds)
        else:
            await generator.open_loop(
                made, per_second=cell.per_second, seconds=seconds, deadline_seconds=cell.deadline_seconds
            )
        own_cpu = time.process_time() - own_cpu
        after = self._cpu()
        return summary(
            generator.answers,
            cell,
            self.name,
            number,
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


class BareEngine:
    """An engine in a process of its own that is told what to do line by line; idle, it waits for the next one.

    Args:
        name: Of the contestant.
        command: Starts it.
        log: For what libraries say.
        threads: For OpenMP, which reads it once.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, threads: int) -> None:
        self.name = name
        self.ways: dict[str, Any] = {}
        with log.open("wb") as written:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
            )
        self._log = log

    async def wait(self) -> None:
        """Until it is loaded.

        Raises:
            EngineError: It ended.
            TimeoutError: It was not loaded in time.
        """
        await self._read(_START_SECONDS)

    async def ask(self, what: str, **arguments: Any) -> Any:
        """Gives one command and waits for its reply.

        Raises:
            EngineError: It ended.
            TimeoutError: It did not answer in time.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EngineError(self._said()) from None
        return await self._read(_REPLY_SECONDS)

    async def turn(self, cell: Cell, work: Sequence[Rows], number: int, seconds: float) -> Turn:
        """See Contestant; the texts of the mix were loaded beforehand."""
        del work
        told = await self.ask("measure", mix=cell.mix, seconds=seconds)
        return Turn(
            self.name, number, told["seconds"], told["texts"], told["tokens"], {"OK": told["texts"]},
            padding=told["computed_tokens"] / told["tokens"], cpu_seconds=told["cpu_seconds"],
            rss_mib=process.rss_mib(self._process.pid),
        )  # fmt: skip

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Last, as a thread may still wait for a line.
        self._process.stdout.close()

    async def _read(self, within_seconds: float) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), within_seconds)
        if not line:
            raise EngineError(self._said())
        return json.loads(line)

    def _said(self) -> str:
        said = self._log.read_text(errors="replace").strip().splitlines()
        return f"it ended: {said[-1][:300] if said else 'it said nothing'}"


class EngineError(RuntimeError):
    """A bare engine is gone; the text is the last that it said."""


def summary(answers: Sequence[Answer], cell: Cell, name: str, number: int, **measured: Any) -> Turn:
    """One turn's figures from its answers.

    Seconds run until the last answer in a closed loop, so that all work and all time count; in an open loop as long
    as requests came, as the load is given.
    """
    good = [one for one in answers if one.code == "OK"]
    started = min((one.sent_at for one in answers), default=0.0)
    ended = max((one.sent_at + one.seconds for one in answers), default=0.0)
    seconds = ended - started if cell.per_second is None else len(answers) / cell.per_second
    in_time = sum(one.seconds <= cell.deadline_seconds for one in good)
    return Turn(
        name, number, max(seconds, 1e-9), len(good), sum(one.tokens for one in good),
        dict(Counter(one.code for one in answers)), percentiles([1000 * one.seconds for one in good]),
        in_time=None if cell.per_second is None else in_time, offered=cell.per_second, **measured,
    )  # fmt: skip
