"""`python -m bench.front_ends MODEL [SECONDS]`: requests per second with more and more front ends, on many cores.

The load comes from processes of their own, each with a few connections, as front ends share callers by connection.
"""

import asyncio
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.load import Generator, requests
from bench.process import ServerProcess, cpu_seconds, server

_FRONT_ENDS = (0, 1, 2, 4, 8)
_GENERATORS = 6
# In each of these processes, with four connections each.
_CALLERS = 2
# Of one caller, by texts a request.
_CLIENTS = {1: 48, 16: 12}


def main() -> None:
    """Prints the figures as JSON, one line for each number of front ends and texts per request."""
    model = str(Path(sys.argv[1]).resolve())
    seconds = float((sys.argv[2:] or ["5"])[0])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_GENERATORS, mp_context=context) as pool:
        for count in _FRONT_ENDS:
            with server(model, FRONT_ENDS=str(count)) as process:
                for texts in _CLIENTS:
                    figures = measure(pool, process, texts, seconds)
                    print(json.dumps({"front_ends": count, "texts": texts, **figures}), flush=True)


def measure(pool: ProcessPoolExecutor, process: ServerProcess, texts: int, seconds: float) -> dict[str, Any]:
    """What all generators together got done, and what the main process took for it."""
    load = partial(_load, process.target, texts)
    list(pool.map(load, [1.0] * _GENERATORS))
    before = cpu_seconds(process.pid)
    answers = [one for part in pool.map(load, [seconds] * _GENERATORS) for one in part]
    main_cpu = cpu_seconds(process.pid) - before
    good = [(took, tokens) for took, code, tokens in answers if code == "OK"]
    latencies = 1000 * np.array([took for took, _ in good])
    return {
        "requests_per_second": round(len(good) / seconds),
        "texts_per_second": round(texts * len(good) / seconds),
        "tokens_per_second": round(sum(tokens for _, tokens in good) / seconds),
        "p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "p99_ms": round(float(np.percentile(latencies, 99)), 2),
        "not_ok": len(answers) - len(good),
        "main_process_cores": round(main_cpu / seconds, 2),
    }


def _load(target: str, texts: int, seconds: float) -> Sequence[tuple[float, str, int]]:
    return uvloop.run(_ask(target, texts, seconds))


async def _ask(target: str, texts: int, seconds: float) -> Sequence[tuple[float, str, int]]:
    made = requests("queries", 500, texts=texts)
    generators = [Generator(target) for _ in range(_CALLERS)]
    await asyncio.gather(*(one.closed_loop(made, clients=_CLIENTS[texts], seconds=seconds) for one in generators))
    for one in generators:
        await one.close()
    return [(answer.seconds, answer.code, answer.tokens) for one in generators for answer in one.answers]


if __name__ == "__main__":
    main()
