"""Engines without a server: each in a process of its own that is told what to do."""

import asyncio
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import process
from bench.contestants import Cell
from bench.rounds import Turn
from bench.workload import Rows

# A model may be compiled first, for as long as bench/engines/packed.py waits for it.
_START_SECONDS = 660
_REPLY_SECONDS = 120


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
