"""`python -m bench.overload MODEL`: what a server does at three times its capacity, and how soon it is well again."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.load import Answer, Generator, requests

_DRAIN_LIMIT_MS = 2000
_COMPARABLE_MS = 50


@contextlib.contextmanager
def server(model: str, **environment: str) -> Iterator[tuple[str, str, int]]:
    """A server in a process of its own: gRPC target, URL, pid."""
    variables = {
        **os.environ, "MODEL_PATH": model, "GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0", "HTTP_HEALTH_PORT": "0",
        "SHUTDOWN_PROPAGATION_SECONDS": "0", **environment,
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", "sluice_server"], env=variables, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            records = (json.loads(line) for line in process.stderr if line.startswith(b"{"))
            ports = next(record for record in records if record["message"] == "listening")
            settled = next(record for record in records if record.get("phase") in ("serving", "failed"))
            if settled["phase"] == "failed":
                raise SystemExit(settled["message"])
            yield f"127.0.0.1:{ports['grpc_port']}", f"http://127.0.0.1:{ports['http_port']}", process.pid
        finally:
            process.terminate()
            process.communicate(timeout=30)


def main() -> None:
    """Prints the figures as JSON."""
    model, mix = str(Path(sys.argv[1]).resolve()), (sys.argv[2:] or ["products"])[0]
    seconds = float((sys.argv[3:] or ["30"])[0])
    with server(model, BACKPRESSURE_MAX_DRAIN_MS=str(_DRAIN_LIMIT_MS)) as (target, url, pid):
        print(json.dumps(asyncio.run(measure(target, url, pid, mix, seconds)), indent=1))


async def measure(target: str, url: str, pid: int, mix: str, seconds: float) -> dict[str, Any]:
    """Capacity in a closed loop, then three times that in an open loop, then recovery."""
    made = requests(mix, 2000)
    closed = Generator(target)
    await closed.closed_loop(made, clients=32, seconds=5)
    closed.answers.clear()
    await closed.closed_loop(made, clients=32, seconds=max(5, seconds / 3))
    capacity = _rate(closed.answers)
    rss_before = _rss_mib(pid)
    generator = Generator(target)
    await generator.open_loop(made, per_second=3 * capacity, seconds=seconds, deadline_seconds=10)
    ended = time.monotonic()
    document = await asyncio.to_thread(_wait_until_healthy, url)
    recovered = time.monotonic() - ended
    await closed.close()
    await generator.close()
    accepted = [one for one in generator.answers if one.code == "OK"]
    in_time = [one for one in accepted if 1000 * one.seconds <= _DRAIN_LIMIT_MS]
    latencies = [1000 * one.seconds for one in accepted]
    return {
        "mix": mix,
        "capacity_requests_per_second": capacity,
        "capacity_tokens_per_second": sum(a.tokens for a in closed.answers) / _span(closed.answers),
        "p50_p99_ms_at_capacity": _percentiles([1000 * a.seconds for a in closed.answers]),
        "offered_requests_per_second": 3 * capacity,
        "goodput_share_of_capacity": len(in_time) / seconds / capacity,
        "answers": Counter(one.code for one in generator.answers),
        "accepted_p50_p99_ms": _percentiles(latencies),
        "accepted_p50_p99_ms_inside_the_server": _percentiles([1000 * (one.server_seconds or 0) for one in accepted]),
        "drain_error": _drain_error(accepted),
        "recovery_seconds": recovered,
        "rss_mib_before_and_after": [rss_before, _rss_mib(pid)],
        "expired_tokens": document["expired_tokens_total"],
    }


def _wait_until_healthy(url: str) -> dict[str, Any]:
    while (document := _health(url))["status"] != "healthy":
        time.sleep(0.02)
    return document


def _drain_error(answers: list[Answer]) -> list[float]:
    """Median and P95 of |promised - lived| / lived, over requests that waited long enough to compare."""
    by_time = sorted((a for a in answers if a.promised_drain_ms), key=lambda a: a.sent_at)
    ends = np.array([a.sent_at + a.seconds for a in by_time])
    arrivals = np.array([a.sent_at for a in by_time])
    lived = np.array([1000 * a.seconds for a in by_time])
    errors = []
    for answer, end in zip(by_time, ends, strict=True):
        # The promise was made as this answer left; a request that came at that moment lived through it.
        place = int(np.searchsorted(arrivals, end))
        if place < len(by_time) and answer.promised_drain_ms and lived[place] > _COMPARABLE_MS:
            errors.append(abs(answer.promised_drain_ms - lived[place]) / lived[place])
    return [float(np.median(errors)), float(np.percentile(errors, 95))] if errors else []


def _rate(answers: list[Answer]) -> float:
    return len(answers) / _span(answers)


def _span(answers: list[Answer]) -> float:
    return max(a.sent_at + a.seconds for a in answers) - min(a.sent_at for a in answers)


def _percentiles(values: list[float]) -> list[float]:
    return [float(np.percentile(values, q)) for q in (50, 99)] if values else []


def _health(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
        document: dict[str, Any] = json.load(response)
        return document


def _rss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
