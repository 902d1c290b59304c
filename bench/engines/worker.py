"""`python -m bench.engines.worker ENGINE DTYPE MODEL FOLDER THREADS`: one engine, told what to do line by line.

FOLDER holds the exported or compiled model. OMP_NUM_THREADS is set by who starts it, as torch reads it once.
Commands and replies are JSON, one a line, on stdin and stdout; all that libraries say goes to stderr.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.engines.base import Engine, Texts, Way

_TRY_SECONDS = 0.15
_TRIES = 2


@dataclass(slots=True)
class Work:
    """The texts of one mix, and where the engine is among its batches: it goes on there in its next turn."""

    texts: Texts
    way: Way
    order: list[int] = field(default_factory=list)
    place: int = 0

    def next_batch(self) -> list[int]:
        """Places of the next batch; batches of all lengths come mixed."""
        if not self.order:
            self.order = list(range(len(self.way.batches)))
            random.Random(5).shuffle(self.order)
        batch = self.way.batches[self.order[self.place % len(self.order)]]
        self.place += 1
        return list(batch)


def main() -> None:
    """Serves until stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, dtype, model, folder, threads = sys.argv[1:]
    commands = Commands(build(name, dtype, model, folder, int(threads)))
    replies.write(json.dumps({"ready": True}) + "\n")
    replies.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        replies.write(json.dumps(commands.do(asked.pop("do"), asked)) + "\n")
        replies.flush()


def build(name: str, dtype: str, model: str, folder: str, threads: int) -> Engine:
    """The engine of a name; each imports what only it needs."""
    # ruff: noqa: PLC0415
    if name in ("compiled", "eager"):
        from sluice_server.threads import set_thread_count

        set_thread_count()
        from bench.engines.packed import PackedEngine

        return PackedEngine(model, dtype, folder if name == "compiled" else None)
    if name == "sentence-transformers":
        from bench.engines.sentence import SentenceEngine

        return SentenceEngine(model, dtype)
    if name == "onnxruntime":
        from bench.engines.onnx import OnnxEngine

        return OnnxEngine(Path(folder), dtype, threads)
    if name == "openvino":
        from bench.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(Path(folder), dtype, threads)
    raise SystemExit(f"no engine {name!r}")


class Commands:
    """What can be asked of a worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._work: dict[str, Work] = {}

    def do(self, name: str, asked: dict[str, Any]) -> Any:
        """Runs one command."""
        commands: dict[str, Callable[..., Any]] = {
            "load": self._load, "measure": self._measure, "embed": self._embed, "forward": self._forward,
            "reference": self._reference, "tokenize": self._tokenize,
        }  # fmt: skip
        return commands[name](**asked)

    def _load(self, mix: str, path: str) -> Any:
        """Reads the texts of a mix and finds the best way to compute them."""
        texts = read_texts(Path(path))
        ways = self._engine.ways([len(row) for row in texts.rows])
        tried = [Work(texts, way) for way in ways]
        rates = [0.0] * len(tried)
        tries = _TRIES if len(tried) > 1 else 0
        # In turns, as the machine's speed changes meanwhile; the first one warms up.
        for turn in range(tries + 1):
            for place, work in enumerate(tried):
                told = self._run(work, _TRY_SECONDS)
                rates[place] += told["tokens"] / told["seconds"] if turn else 0.0
        best = tried[int(np.argmax(rates))]
        self._work[mix] = best
        found = {work.way.name: round(rate / max(1, tries)) for work, rate in zip(tried, rates, strict=True)}
        return {"way": best.way.name, "tried": found}

    def _measure(self, mix: str, seconds: float) -> Any:
        return self._run(self._work[mix], seconds)

    def _run(self, work: Work, seconds: float) -> dict[str, float]:
        tokens = computed = texts = 0
        cpu, began = time.process_time(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            batch = work.texts.choose(work.next_batch())
            computed += self._engine.start(batch, work.way.option)
            tokens += batch.tokens
            texts += len(batch.rows)
        self._engine.finish()
        elapsed = time.perf_counter() - began
        return {
            "tokens": tokens, "texts": texts, "computed_tokens": computed, "seconds": elapsed,
            "cpu_seconds": time.process_time() - cpu,
        }  # fmt: skip

    def _forward(self, mix: str, seconds: float) -> Any:
        """Single texts, one after the other: seconds of each."""
        work, taken = self._work[mix], []
        for place in _cycle(len(work.texts.rows), seconds):
            one = work.texts.choose([place])
            began = time.perf_counter()
            self._engine.start(one, work.way.option)
            self._engine.finish()
            taken.append(time.perf_counter() - began)
        return {"seconds": taken}

    def _embed(self, path: str) -> Any:
        return {"embeddings": self._engine.embed(read_texts(Path(path))).tolist()}

    def _reference(self, path: str) -> Any:
        """Of sentence-transformers alone: also pooled without special tokens."""
        engine: Any = self._engine
        texts = read_texts(Path(path))
        return {
            "embeddings": engine.embed(texts).tolist(),
            "without_special_tokens": engine.embed_without_special(texts).tolist(),
        }

    def _tokenize(self, texts: list[str]) -> Any:
        engine: Any = self._engine
        return {"ids": engine.tokenize(texts)}


def write_texts(path: Path, texts: Texts) -> None:
    """For `read_texts`, in another process."""
    np.savez(
        path,
        ids=np.concatenate(texts.rows),
        lengths=np.array([len(row) for row in texts.rows]),
        texts=np.array(list(texts.texts)),
    )


def read_texts(path: Path) -> Texts:
    """What `write_texts` wrote."""
    with np.load(path) as kept:
        rows = np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])
        return Texts(rows, kept["texts"].tolist())


def _cycle(count: int, seconds: float) -> Iterator[int]:
    end, place = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        yield place % count
        place += 1


if __name__ == "__main__":
    main()
