"""The server's own calls through gRPC's queue, on a real server."""

import asyncio
import logging
import stat
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from sluice_server.rpc.accept_probe import AcceptProbe

# What each call holds the server's event loop for.
BUSY_SECONDS = 0.005
CALLS = 100


def identity(data: bytes) -> bytes:
    return data


@dataclass(slots=True)
class BusyServer:
    """One whose calls hold its event loop; the first one until all of them are under way."""

    probe: AcceptProbe
    target: str = ""
    # What each call waited in truth, and what the probe said; in milliseconds.
    seen: list[tuple[float, float | None]] = field(default_factory=list)
    all_are_under_way: threading.Event = field(default_factory=threading.Event)

    def call_at_once(self, calls: int) -> None:
        """So many calls, under way at the same time."""
        self.all_are_under_way.clear()
        with grpc.insecure_channel(self.target) as channel:
            work = channel.unary_unary("/test.Busy/Work", identity, identity)
            under_way = [work.future(repr(time.monotonic()).encode(), timeout=60) for _ in range(calls)]
            self.all_are_under_way.set()
            for one in under_way:
                one.result()


@asynccontextmanager
async def busy_server() -> AsyncIterator[BusyServer]:
    server = grpc.aio.server()
    probe = AcceptProbe(server)
    busy = BusyServer(probe)

    async def work(request: bytes, context: Any) -> bytes:
        busy.all_are_under_way.wait(30)
        busy.seen.append((1000 * (time.monotonic() - float(request)), probe.waited_ms()))
        until = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < until:
            pass
        return b""

    handler = grpc.unary_unary_rpc_method_handler(work)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Busy", {"Work": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    probe.listen()
    await server.start()
    try:
        busy.target = f"127.0.0.1:{port}"
        yield busy
    finally:
        await probe.stop()
        await server.stop(0)


def left_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_it_tells_of_a_queue_that_the_server_has_not_seen() -> None:
    async with busy_server() as busy:
        await asyncio.to_thread(busy.call_at_once, CALLS)
    assert len(busy.seen) == CALLS
    waited_ms, said_ms = max(busy.seen)
    assert waited_ms > 1000 * BUSY_SECONDS * CALLS / 4, "there was no queue to tell of"
    assert said_ms is not None
    assert waited_ms / 2 < said_ms < 2 * waited_ms


async def test_where_nothing_waits_it_says_so() -> None:
    async with busy_server() as busy:
        deadline = time.monotonic() + 30
        await asyncio.to_thread(busy.call_at_once, 1)
        while (said_ms := busy.probe.waited_ms()) is None or said_ms > 1000 * BUSY_SECONDS * CALLS / 4:
            assert time.monotonic() < deadline, said_ms
            await asyncio.to_thread(busy.call_at_once, 1)


async def test_only_its_own_user_reaches_its_socket_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with busy_server():
        folder, *inside = left_in(tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IRWXU
        assert [path.is_socket() for path in inside] == [True]
    assert left_in(tmp_path) == []


async def test_where_no_socket_can_be_the_server_serves_and_knows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    too_long = tmp_path / ("x" * 120)
    too_long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(too_long))
    with caplog.at_level(logging.WARNING):
        async with busy_server() as busy:
            await asyncio.to_thread(busy.call_at_once, 3)
    assert [said for _, said in busy.seen] == [None] * 3
    assert "stays unknown" in caplog.text
    assert left_in(too_long) == []
