"""`python -m bench.overload MODEL [MIX [SECONDS [TEXTS]]]`: a server at three times its capacity, and its recovery."""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.callers import Request
from bench.drain import relative_errors
from bench.load import Answer, Generator, requests
from bench.process import ServerProcess, server

_DRAIN_LIMIT_MS = 2000


def main() -> None:
    """Prints the figures as JSON."""
    model, mix = str(Path(sys.argv[1]).resolve()), (sys.argv[2:] or ["products"])[0]
    seconds = float((sys.argv[3:] or ["60"])[0])
    texts = int((sys.argv[4:] or ["1"])[0])
    with server(model, BACKPRESSURE_MAX_DRAIN_MS=str(_DRAIN_LIMIT_MS)) as process:
        print(json.dumps(uvloop.run(measure(process, mix, seconds, texts)), indent=1))


async def measure(process: ServerProcess, mix: str, seconds: float, texts: int) -> dict[str, Any]:
    """Capacity in a closed loop before and after; between them three times that in an open loop, and recovery.

    Capacity is taken twice because a shared machine's speed changes within minutes.
    """
    made = requests(mix, 2000, texts=texts)
    # Thirty-two texts under way, in at least four requests: a queue, and far from the limit.
    clients = max(4, 32 // texts)
    closed = Generator(process.target)
    before = await _capacity(closed, made, max(5, seconds / 6), clients)
    rss = [process.rss_mib()]
    generator = Generator(process.target)
    cpu = [process.cpu_seconds(), time.process_time()]
    watcher = asyncio.create_task(_watch_memory(process, rss))
    await generator.open_loop(made, per_second=3 * before[0], seconds=seconds, deadline_seconds=10)
    ended = time.monotonic()
    cpu = [process.cpu_seconds() - cpu[0], time.process_time() - cpu[1]]
    watcher.cancel()
    document = await asyncio.to_thread(_wait_until_healthy, process)
    recovered = time.monotonic() - ended
    after = await _capacity(closed, made, max(5, seconds / 6), clients)
    await closed.close()
    await generator.close()
    accepted = [one for one in generator.answers if one.code == "OK"]
    in_time = [one for one in accepted if 1000 * one.seconds <= _DRAIN_LIMIT_MS]
    requests_per_second, tokens_per_second = ((one + other) / 2 for one, other in zip(before, after, strict=True))
    return {
        "mix": mix,
        "texts_per_request": texts,
        "capacity_requests_and_tokens_per_second_before_and_after": [before, after],
        "offered_requests_per_second": 3 * before[0],
        "answers": Counter(one.code for one in generator.answers),
        "served_share_of_capacity": len(accepted) / seconds / requests_per_second,
        "goodput_share_of_capacity": len(in_time) / seconds / requests_per_second,
        # Where these are less, it was the long ones that were refused.
        "goodput_tokens_share_of_capacity": sum(one.tokens for one in in_time) / seconds / tokens_per_second,
        "served_share_of_the_shorter_and_the_longer_half": _served_shares(generator.answers),
        "late_by_second": _late_by_second(accepted),
        "accepted_p50_p99_ms": _percentiles([1000 * one.seconds for one in accepted]),
        "accepted_p50_p99_ms_inside_the_server": _percentiles([one.reply.server_ms or 0 for one in accepted]),
        "drain_error_median_p95": relative_errors(accepted),
        "recovery_seconds": recovered,
        "rss_mib": rss,
        "cpu_seconds_of_server_and_generator": cpu,
        "expired_tokens": document["expired_tokens_total"],
    }


async def _capacity(closed: Generator, made: list[Request], seconds: float, clients: int) -> tuple[float, float]:
    """Requests and tokens per second of clients that ask again at once, after a run-up; refusals do not count."""
    await closed.closed_loop(made, clients=clients, seconds=3)
    closed.answers.clear()
    await closed.closed_loop(made, clients=clients, seconds=seconds)
    last = max(one.sent_at + one.seconds for one in closed.answers)
    took = last - min(one.sent_at for one in closed.answers)
    served = [one.tokens for one in closed.answers if one.code == "OK"]
    return len(served) / took, sum(served) / took


async def _watch_memory(process: ServerProcess, rss: list[float]) -> None:
    while True:
        await asyncio.sleep(10)
        rss.append(process.rss_mib())


def _wait_until_healthy(process: ServerProcess) -> dict[str, Any]:
    while (document := process.health())["status"] != "healthy":
        time.sleep(0.02)
    return document


def _late_by_second(accepted: list[Answer]) -> dict[int, int]:
    """Accepted requests that took longer than the limit, by the second in which they came."""
    start = min(one.sent_at for one in accepted)
    late = Counter(int(one.sent_at - start) for one in accepted if 1000 * one.seconds > _DRAIN_LIMIT_MS)
    return dict(sorted(late.items()))


def _served_shares(answers: list[Answer]) -> list[float]:
    """Of the shorter half of what was asked for, and of the longer half: how much of it was served."""
    by_length = sorted(answers, key=lambda one: one.tokens)
    middle = len(by_length) // 2
    return [float(np.mean([one.code == "OK" for one in half])) for half in (by_length[:middle], by_length[middle:])]


def _percentiles(values: list[float]) -> list[float]:
    return [float(np.percentile(values, q)) for q in (50, 99)] if values else []


if __name__ == "__main__":
    main()
