"""Opening, sharing and closing: nothing is left behind, and misuse is told."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from sluice_client import AsyncEmbeddingClient, EmbeddingClient, UsageError

from tests.client.conftest import Script, numbers, wait_for


def client_threads(before: set[threading.Thread]) -> list[str]:
    """Those that are new and not the test's own; gRPC's end a moment after the last channel is closed."""
    new = (thread.name for thread in set(threading.enumerate()) - before)
    return [name for name in new if not name.startswith(("script", "asyncio"))]


async def test_no_thread_and_no_task_stays(embed: Any, script: Script) -> None:
    await embed(script.target, numbers(4))  # the server's own threads are started
    before, tasks = set(threading.enumerate()), asyncio.all_tasks()
    await embed(script.target, numbers(40))
    await asyncio.to_thread(wait_for, lambda: not client_threads(before), "no thread stays")
    assert asyncio.all_tasks() == tasks


def test_a_client_that_was_never_used_has_nothing_to_close() -> None:
    EmbeddingClient("svc:50051").close()
    asyncio.run(AsyncEmbeddingClient("svc:50051").close())


def test_closing_twice_is_closing_once(script: Script) -> None:
    with EmbeddingClient(script.target) as client:
        client.embed(["1"])
        client.close()
    client.close()
    with pytest.raises(UsageError, match=f"^{script.target}: the client is closed$"):
        client.embed(["1"])


async def test_closing_twice_is_closing_once_async(script: Script) -> None:
    async with AsyncEmbeddingClient(script.target) as client:
        await client.embed(["1"])
        await client.close()
    await client.close()
    with pytest.raises(UsageError, match=f"^{script.target}: the client is closed$"):
        await client.embed(["1"])


def test_closing_ends_what_other_threads_wait_for(script: Script) -> None:
    script.behave = lambda _texts, _before, context: script.block_until_the_caller_leaves(context)
    client = EmbeddingClient(script.target)
    told: list[BaseException] = []

    def ask() -> None:
        try:
            client.embed(["1"])
        except UsageError as error:
            told.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: bool(script.seen), "the request is under way")
    client.close()
    thread.join(10)
    assert [str(error) for error in told] == [f"{script.target}: the client is closed"]


async def test_closing_ends_what_other_tasks_wait_for(script: Script) -> None:
    script.behave = lambda _texts, _before, context: script.block_until_the_caller_leaves(context)
    client = AsyncEmbeddingClient(script.target)
    task = asyncio.create_task(client.embed(["1"]))
    await asyncio.to_thread(wait_for, lambda: bool(script.seen), "the request is under way")
    await client.close()
    with pytest.raises(UsageError, match="the client is closed"):
        await task


def test_threads_share_a_client(script: Script) -> None:
    answers: dict[int, list[float]] = {}
    with EmbeddingClient(script.target) as client:

        def ask(number: int) -> None:
            answers[number] = client.embed([str(number)] * 9)[:, 0].tolist()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert answers == {number: [number] * 9 for number in range(8)}


def test_an_async_client_belongs_to_one_event_loop(script: Script) -> None:
    """It may be made before any loop runs; the first use binds it."""
    client = AsyncEmbeddingClient(script.target)

    async def use_in_two_loops() -> None:
        await client.embed(["1"])
        with pytest.raises(UsageError, match="first used in another event loop; make one for each loop"):
            await asyncio.to_thread(asyncio.run, client.embed(["1"]))
        await client.close()

    asyncio.run(use_in_two_loops())
    gc.collect()  # a coroutine or a channel left behind would warn now


FORKING = """
import os, sys
from sluice_client import EmbeddingClient

client = EmbeddingClient(sys.argv[1], deadline_seconds=20)
if sys.argv[2] == "used":
    client.embed(["1"])
child = os.fork()
rows = client.embed(["2", "3"])
assert rows[:, 0].tolist() == [2, 3]
client.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("before", ["unused", "used"])
def test_a_client_made_before_a_fork_serves_parent_and_child(script: Script, before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, script.target, before],
        env={**os.environ, "GRPC_VERBOSITY": "NONE"}, timeout=60, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
