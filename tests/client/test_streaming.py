"""Inputs without a known length: bounded memory, order, and leaving early."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from sluice_client import AsyncEmbeddingClient, EmbeddingClient

from tests.client.conftest import Script, numbers, wait_for


class Source:
    """Numbers without end, and how many of them were read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            self.read += 1
            yield str(self.read - 1)


def test_runs_carry_their_inputs_and_positions_in_order(script: Script) -> None:
    with EmbeddingClient(script.target) as client:
        runs = list(client.embed_iter(iter(numbers(10))))
    assert [(run.first, run.inputs) for run in runs] == [
        (0, ("0", "1", "2", "3")),
        (4, ("4", "5", "6", "7")),
        (8, ("8", "9")),
    ]
    assert [row[0] for run in runs for row in run.embeddings] == list(range(10))
    assert [run.tokens_used for run in runs] == [4, 4, 2]


def test_an_endless_input_is_read_only_as_far_as_the_window_reaches(script: Script) -> None:
    source = Source()
    with EmbeddingClient(script.target, max_in_flight=3) as client:
        for run in itertools.islice(client.embed_iter(source), 20):
            # Four inputs a request, at most twice the window held, and one that opens the next part.
            assert source.read <= run.first + 4 * (2 * 3 + 1)
    assert source.read < 200


async def test_an_endless_input_is_read_only_as_far_as_the_window_reaches_async(script: Script) -> None:
    source, seen = Source(), 0
    async with (
        AsyncEmbeddingClient(script.target, max_in_flight=3) as client,
        contextlib.aclosing(client.embed_iter(source)) as runs,  # type: ignore[type-var]
    ):
        async for run in runs:
            assert source.read <= run.first + 4 * (2 * 3 + 1)
            seen += 1
            if seen == 20:
                break
    assert source.read < 200


async def test_a_slow_source_does_not_hold_up_what_is_answered(script: Script) -> None:
    go_on = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        for number in numbers(4):
            yield number
        await go_on.wait()
        yield "4"

    async with AsyncEmbeddingClient(script.target) as client:
        runs = client.embed_iter(source())
        assert (await anext(runs)).first == 0
        go_on.set()
        assert [run.first async for run in runs] == [4]


def test_leaving_early_cancels_what_is_under_way(script: Script) -> None:
    all_there = threading.Barrier(3)

    def behave(texts: Any, _before: int, context: Any) -> None:
        if texts[0] in ("0", "4", "8"):
            all_there.wait(10)
        if texts[0] != "0":
            script.block_until_the_caller_leaves(context)

    script.behave = behave
    with EmbeddingClient(script.target, max_in_flight=3) as client:
        for _ in client.embed_iter(numbers(100)):
            break
        assert script.cancelled.acquire(timeout=10)
        assert script.cancelled.acquire(timeout=10)


async def test_a_cancelled_task_cancels_what_is_under_way(script: Script) -> None:
    script.behave = lambda _texts, _before, context: script.block_until_the_caller_leaves(context)
    async with AsyncEmbeddingClient(script.target, max_in_flight=3) as client:
        task = asyncio.create_task(client.embed(numbers(100)))
        await asyncio.to_thread(wait_for, lambda: len(script.seen) == 3, "three requests are under way")
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError)
        for _ in range(3):
            assert await asyncio.to_thread(script.cancelled.acquire, timeout=10)
    assert asyncio.all_tasks() == {asyncio.current_task()}
