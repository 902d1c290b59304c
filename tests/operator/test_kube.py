"""Requests to the API server, over real HTTP on loopback."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from kubernetes.aio.client.configuration import Configuration
from sluice_operator.kube import Kube, KubeError

GRACE_SECONDS = 0.02


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[Kube, asyncio.Event]]:
    """A client that may write for 0.3 s more, of a server that takes requests and answers none."""
    asked, over, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await over.wait()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Kube(configuration, timeout_seconds=10, seconds_to_write=lambda: 0.3) as kube:
        yield kube, asked
        over.set()
        await ended.wait()


async def test_a_write_is_given_up_when_the_right_to_write_ends() -> None:
    async with silent_server() as (kube, _):
        with pytest.raises(KubeError, match="PATCH /api/v1/namespaces/shop/pods/a/status: TimeoutError"):
            await kube.annotate_pod("shop", "a", "uid-a", "k", "v")


async def test_a_write_that_is_cancelled_the_moment_its_time_runs_out_ends_its_task() -> None:
    loop = asyncio.get_running_loop()
    async with silent_server() as (kube, asked):
        began = loop.time()
        task = asyncio.create_task(kube.annotate_pod("shop", "a", "uid-a", "k", "v"))
        loop.call_at(began + 0.3 + GRACE_SECONDS, task.cancel)
        await asked.wait()
        # Both are due when the loop looks again, the time-out first; the task runs only after both.
        time.sleep(0.3 + 2 * GRACE_SECONDS)  # noqa: ASYNC251 - the loop has to be late
        await asyncio.wait({task}, timeout=5)
        assert task.cancelled()
