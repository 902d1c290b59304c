"""Answers GET /health for every pod of a crowd from one process, each pod by its own address.

Every pod serves, and what it measures is as noisy as under steady traffic; `CrowdHealth.say` changes what single pods answer.
The process is told over its standard input, a line of JSON each, and answers each line with one on its standard
output; it counts who asked when, so that how regularly pods are asked is seen from outside the operator.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any, Self

from tests.operator.builders import ROOT, health_document

PORT = 8001
TOKENS_PER_SECOND = 4_000.0
"""What clients ask of every pod: a third of what it computes."""
Json = dict[str, Any]
_SERVING: Json = health_document()


class CrowdHealth:
    """The process, and what it can be told.

    Args:
        addresses: to listen on; "0.0.0.0" where all of a range are this host's.
    """

    def __init__(self, addresses: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.operator.crowd_health", *addresses],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        self._tell({})
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)  # it ends with its input

    def say(self, addresses: list[str], **fields: Any) -> None:
        """From now on these pods answer with other fields; with none, as all do."""
        self._tell({"addresses": addresses, "fields": fields})

    def asked_at(self) -> dict[str, list[float]]:
        """When each pod was asked since this was called last, in seconds of the monotonic clock."""
        return self._tell({"forget": True})

    def _tell(self, order: Json) -> Json:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: Json = json.loads(self._process.stdout.readline())
        return answer


class _Crowd:
    """What all pods answer."""

    def __init__(self) -> None:
        self.fields: dict[str, Json] = {}
        self.asked_at: dict[str, list[float]] = defaultdict(list)
        self._began = time.monotonic()

    def answer(self, address: str) -> bytes:
        now = time.monotonic()
        self.asked_at[address].append(now)
        rate, drain = 12_000 * random.uniform(0.95, 1.05), random.uniform(5, 50)
        # A tenth of a second of work more or less: requests come as they please.
        tokens = round((now - self._began + random.uniform(0, 0.1)) * TOKENS_PER_SECOND)
        changing = {
            "boot_id": f"boot-{address}",
            "uptime_seconds": now - self._began,
            "busy_fraction": random.uniform(0.2, 0.7),
            "service_rate_tokens_per_sec": rate,
            "estimated_drain_time_ms": drain,
            "queued_tokens": round(rate * drain / 1000),
            **dict.fromkeys(("offered_tokens_total", "admitted_tokens_total", "computed_tokens_total"), tokens),
        }
        return json.dumps({**_SERVING, **changing, **self.fields.get(address, {})}).encode()

    def obey(self, order: Json) -> Json:
        for address in order.get("addresses", ()):
            if order["fields"]:
                self.fields[address] = order["fields"]
            else:
                self.fields.pop(address, None)
        if not order.get("forget"):
            return {}
        told, self.asked_at = self.asked_at, defaultdict(list)
        return told


class _Connection(asyncio.Protocol):
    """As much HTTP/1.1 as a client needs that asks for one thing, one request after the other."""

    def __init__(self, crowd: _Crowd) -> None:
        self._crowd = crowd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._address = transport.get_extra_info("sockname")[0]
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            known = request.startswith(b"GET /health ")
            body = self._crowd.answer(self._address) if known else b"{}"
            head = f"HTTP/1.1 {'200 OK' if known else '404 Not Found'}\r\nContent-Type: application/json\r\n"
            self._transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


async def _serve(addresses: list[str]) -> None:
    loop, crowd = asyncio.get_running_loop(), _Crowd()
    server = await loop.create_server(lambda: _Connection(crowd), addresses, PORT, backlog=1024)
    orders = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with server:
        while line := await orders.readline():
            answer = json.dumps(crowd.obey(json.loads(line)))
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()
        # Clients keep their connections: waiting for them to go would be for ever.
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
