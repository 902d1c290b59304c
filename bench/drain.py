"""`python -m bench.drain MODEL [SECONDS]`: what the server says its queue will take against what it took.

Queries, products, passages and both together come one after the other, each at 60, 90 and 150 % of what the server
can do, in one run: the estimate must follow changes of length and of load, not only steady traffic. SECONDS (180) are
of all twelve parts. The fewer, the more of a part is the second in which its load begins or ends, and what was promised
then is worth less: of 60, a quarter; of 180, a twelfth.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.load import Answer, Generator, requests
from bench.process import ServerProcess, server

_LOADS = (0.6, 1.5, 0.9)
# Below it the hand-over between processes is most of what is lived through.
_COMPARABLE_MS = 50
_NEXT_WITHIN_SECONDS = 0.02


def main() -> None:
    """Prints the figures as JSON."""
    model = str(Path(sys.argv[1]).resolve())
    seconds = float((sys.argv[2:] or ["180"])[0])
    with server(model) as process:
        print(json.dumps(uvloop.run(measure(process, seconds)), indent=1))


async def measure(process: ServerProcess, seconds: float) -> dict[str, Any]:
    """The errors over all of it, and of each part."""
    parts: dict[str, list[float]] = {}
    everything: list[Answer] = []
    for mix in ("queries", "products", "passages", "bimodal"):
        made = requests(mix, 2000)
        closed = Generator(process.target)
        await closed.closed_loop(made, clients=32, seconds=4)
        capacity = len(closed.answers) / 4
        await closed.close()
        for load in _LOADS:
            generator = Generator(process.target)
            await generator.open_loop(
                made, per_second=load * capacity, seconds=seconds / 4 / len(_LOADS), deadline_seconds=10
            )
            await generator.close()
            accepted = [one for one in generator.answers if one.code == "OK"]
            parts[f"{mix} at {load:.0%}"] = relative_errors(accepted)
            everything += accepted
    return {"median_p95_count": relative_errors(everything), "parts": parts}


def relative_errors(answers: Sequence[Answer]) -> list[float]:
    """Median and P95 of |promised - lived| / lived, and how many could be compared.

    A promise is made as an answer leaves; the request that came next, within 20 ms, shows what became of it: lived is
    from the promise until that request is done.
    """
    by_arrival = sorted(answers, key=lambda a: a.sent_at)
    arrivals = np.array([a.sent_at for a in by_arrival])
    errors = []
    for answer in by_arrival:
        told_at = answer.sent_at + answer.seconds
        place = int(np.searchsorted(arrivals, told_at))
        promised_ms = answer.reply.drain_ms
        if promised_ms is None or place == len(by_arrival):
            continue
        if arrivals[place] - told_at > _NEXT_WITHIN_SECONDS:
            continue
        lived_ms = 1000 * (arrivals[place] + by_arrival[place].seconds - told_at)
        if lived_ms > _COMPARABLE_MS:
            errors.append(abs(promised_ms - lived_ms) / lived_ms)
    return [float(np.median(errors)), float(np.percentile(errors, 95)), len(errors)] if errors else []


if __name__ == "__main__":
    main()
