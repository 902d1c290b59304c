"""`python -m bench.priorities MODEL [SECONDS]`: what a person waits beside a client that sends all it can.

The same light interactive load runs alone and beside saturating bulk work, once of priority batch and once of the
default priority, in alternating turns.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import uvloop
from sluice.v1 import embeddings_pb2 as pb

from bench.load import Answer, Generator, requests
from bench.process import ServerProcess, server

if TYPE_CHECKING:
    from bench.callers import Request

_TURNS = 3
_PER_SECOND = 10.0


def main() -> None:
    """Prints the figures as JSON."""
    model = str(Path(sys.argv[1]).resolve())
    seconds = float((sys.argv[2:] or ["60"])[0])
    with server(model) as process:
        print(json.dumps(uvloop.run(measure(process, seconds / 3 / _TURNS)), indent=1))


async def measure(process: ServerProcess, turn_seconds: float) -> dict[str, Any]:
    """Median and P99 of the interactive requests in each company, and what the bulk client got done."""
    people = requests("queries", 500)
    company: dict[str, list[Request]] = {
        "alone": [],
        "beside batch work": requests("products", 500, texts=32, priority=pb.PRIORITY_BATCH),
        "beside bulk work of the default priority": requests("products", 500, texts=32),
    }
    answers: dict[str, list[Answer]] = {name: [] for name in company}
    bulk: dict[str, list[Answer]] = {name: [] for name in company}
    for _ in range(_TURNS):
        for name, made in company.items():
            one, other = Generator(process.target), Generator(process.target)
            crowd = other.closed_loop(made, clients=16 if made else 0, seconds=turn_seconds)
            person = one.open_loop(people, per_second=_PER_SECOND, seconds=turn_seconds, deadline_seconds=10)
            await asyncio.gather(crowd, person)
            answers[name] += one.answers
            bulk[name] += other.answers
            await one.close()
            await other.close()
    return {name: _figures(answers[name], bulk[name], _TURNS * turn_seconds) for name in company}


def _figures(person: list[Answer], bulk: list[Answer], seconds: float) -> dict[str, Any]:
    served = [1000 * one.seconds for one in person if one.code == "OK"]
    return {
        "p50_p99_ms": [float(np.percentile(served, q)) for q in (50, 99)],
        "refused": sum(one.code != "OK" for one in person),
        "bulk_tokens_per_second": sum(one.tokens for one in bulk if one.code == "OK") / seconds,
    }


if __name__ == "__main__":
    main()
