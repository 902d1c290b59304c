"""Each contestant in a process of its own: torch's own CUDA graphs free memory that graphs of others still use."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.gpu.contestants import (
    Contestant,
    SentenceTransformers,
    Sluice,
    packed_by_flash,
    padded_compiled,
    rows_of,
)
from bench.gpu.model import LENGTHS

# A model that is compiled shape by shape takes minutes.
_START_SECONDS = 300.0
_MOST_TURN_SECONDS = 60.0
_REHEARSAL_SECONDS = 0.2

MAKERS: dict[str, Callable[[Path, Path], Contestant]] = {
    "Sluice": lambda model, cache: Sluice(model, cache, compile=True),
    "Sluice fp8": lambda model, cache: Sluice(model, cache, compile=True, quantization="fp8"),
    "Sluice uncompiled": Sluice,
    "torch.compile padded": lambda model, _: padded_compiled(model),
    "packed, FlashAttention-2, eager": lambda model, _: packed_by_flash(model),
    "sentence-transformers": lambda model, _: SentenceTransformers(model),
}


class AbsentError(Exception):
    """A contestant cannot take part; the text says why."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contestant did.

    Attributes:
        tokens_per_second: Of whole batches.
        rows: Embeddings of the last one.
        device_seconds: Of one batch, without the host; None where it is not taken.
    """

    tokens_per_second: float
    rows: NDArray[np.float32]
    device_seconds: float | None


class Process:
    """A contestant, ready to compute.

    Args:
        name: One of MAKERS.
        model: Folder of the model.
        cache: Folder for compiled code.

    Raises:
        AbsentError: It cannot take part.
    """

    def __init__(self, name: str, model: Path, cache: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, model, cache), daemon=True)
        self._process.start()
        theirs.close()
        self.start_seconds: float | None = self._answer(_START_SECONDS)

    def compute(self, length: int, seconds: float) -> Turn:
        """Rows of this length again and again for so long."""
        self._pipe.send((length, seconds))
        turn: Turn = self._answer(_MOST_TURN_SECONDS)
        return turn

    def end(self) -> None:
        """Its memory is free again."""
        self._process.kill()
        self._process.join(_MOST_TURN_SECONDS)

    def _answer(self, seconds: float) -> Any:
        if not self._pipe.poll(seconds):
            self.end()
            raise AbsentError(f"no answer within {seconds:g} s")
        try:
            answer = self._pipe.recv()
        except EOFError as error:
            self._process.join(_MOST_TURN_SECONDS)
            raise AbsentError(f"its process ended with code {self._process.exitcode}") from error
        if isinstance(answer, AbsentError):
            raise answer
        return answer


def _serve(pipe: Connection, name: str, model: Path, cache: Path) -> None:
    try:
        contestant = MAKERS[name](model, cache)
        for length in LENGTHS:
            contestant.compute(rows_of(length), _REHEARSAL_SECONDS)
    except Exception as error:  # noqa: BLE001 - the page says it
        pipe.send(AbsentError(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"))
        return
    pipe.send(contestant.start_seconds if isinstance(contestant, Sluice) else None)
    while True:
        length, seconds = pipe.recv()
        ids = rows_of(length)
        began = time.perf_counter()
        count, rows = contestant.compute(ids, seconds)
        took = time.perf_counter() - began
        device = contestant.device_seconds(ids) if isinstance(contestant, Sluice) else None
        pipe.send(Turn(count * ids.size / took, rows, device))
