"""The asyncio client: the same calls as the blocking one."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc

from sluice_client.base import DIAGNOSIS_SECONDS, BaseClient, no_single_text, ran_out_of_time, request_part
from sluice_client.channel import open_async
from sluice_client.errors import UnavailableError, UsageError
from sluice_client.pipeline import Emit, Fail, Pipeline, Pull, Send, Wait
from sluice_client.requests import EmbedOptions, Inputs
from sluice_client.results import Embedded, Rows
from sluice_client.retry import Failure
from sluice_client.splitting import Part, PartSize, ServiceLimits, Splitter, split

_DEFAULTS = EmbedOptions()

AsyncInputs = Inputs | AsyncIterable[Any]


class AsyncEmbeddingClient(BaseClient):
    """Embeds any number of inputs over all pods of a service, from one event loop.

    It connects when it is first used, and belongs to the event loop of that moment.
    """

    _opened: tuple[grpc.aio.Channel, asyncio.AbstractEventLoop] | None = None

    async def embed(
        self, inputs: AsyncInputs, options: EmbedOptions = _DEFAULTS, *, deadline_seconds: float | None = None
    ) -> NDArray[np.generic]:
        """Embeds texts, or rows of token ids; returns (inputs, dimensions) in their order.

        Args:
            inputs: Read once; may be an async iterable.
            options: Of every input.
            deadline_seconds: For all of them, retries included; default: the client's.

        Raises:
            TypeError: The inputs are no texts and no rows of token ids.
            EmbeddingError: A part was refused for good or not answered before the deadline; the parts
                still under way are cancelled.
        """
        no_single_text(inputs)
        deadline = self._deadline(deadline_seconds)
        limits = await self._limits(deadline)
        rows = Rows(inputs, options, limits.dimension, self.target)
        parts = _split(inputs, options, self._part_size(limits))
        async with contextlib.aclosing(self._run("Embed", parts, self._pipeline(deadline=deadline))) as emits:
            async for emit in emits:
                rows.add(self._embedded(emit))
        return rows.result()

    def embed_iter(
        self, inputs: AsyncInputs, options: EmbedOptions = _DEFAULTS, *, deadline_seconds: float | None = None
    ) -> AsyncIterator[Embedded]:
        """Embeds inputs of any number in bounded memory; yields runs of them with their rows, in order.

        Whoever leaves the loop early wraps it in contextlib.aclosing(), as with every async generator.

        Args:
            inputs: Read as far ahead as requests are under way, and no further; may be an async iterable.
            options: Of every input.
            deadline_seconds: For each request, from when it is first sent, retries included; default: the
                client's.

        Raises:
            TypeError: As embed().
            EmbeddingError: As embed(); what was yielded before stays good.
        """
        no_single_text(inputs)
        return self._embed_iter(inputs, options, self._seconds(deadline_seconds))

    async def info(self, *, deadline_seconds: float | None = None) -> pb.GetInfoResponse:
        """What the service serves: model, dimension, limits.

        Raises:
            EmbeddingError: It was not told before the deadline.
        """
        info = await self._ask_info(self._deadline(deadline_seconds))
        with contextlib.suppress(UnavailableError):  # a model that is not loaded yet is told as it is
            self._learn(info)
        return info

    async def close(self) -> None:
        """Ends the connections; requests under way in other tasks fail. Closing again does nothing."""
        opened, self._opened, self._closed = self._opened, None, True
        if opened is not None:
            await opened[0].close(grace=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _embed_iter(self, inputs: AsyncInputs, options: EmbedOptions, seconds: float) -> AsyncIterator[Embedded]:
        limits = await self._limits(time.monotonic() + seconds)
        parts = _split(inputs, options, self._part_size(limits))
        async with contextlib.aclosing(self._run("Embed", parts, self._pipeline(part_seconds=seconds))) as emits:
            async for emit in emits:
                yield self._embedded(emit)

    async def _limits(self, deadline: float) -> ServiceLimits:
        return self._known_limits() or self._learn(await self._ask_info(deadline))

    async def _ask_info(self, deadline: float) -> pb.GetInfoResponse:
        parts = _one(request_part(pb.GetInfoRequest()))
        async with contextlib.aclosing(self._run("GetInfo", parts, self._pipeline(deadline=deadline))) as emits:
            replies: list[pb.GetInfoResponse] = [emit.reply async for emit in emits]
        return replies[0]

    async def _run(self, name: str, parts: AsyncGenerator[Part], pipeline: Pipeline) -> AsyncGenerator[Emit]:
        """Does what the pipeline says; the source of the inputs is read beside the calls, never before them."""
        calls: dict[asyncio.Task[Any], int] = {}
        pulls: set[asyncio.Task[Part | None]] = set()
        try:
            while True:
                step = pipeline.next(time.monotonic())
                if isinstance(step, Send):
                    calls[asyncio.create_task(self._send(name, step))] = step.part.index
                elif isinstance(step, Pull):
                    pulls.add(asyncio.create_task(_next_or_none(parts)))
                elif isinstance(step, Emit):
                    yield step
                elif isinstance(step, Fail):
                    raise await self._failed(step)
                elif not isinstance(step, Wait):
                    return
                await self._collect(calls, pulls, pipeline, step.seconds if isinstance(step, Wait) else 0.0)
        finally:
            under_way = [*calls, *pulls]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await parts.aclose()

    async def _send(self, name: str, send: Send) -> Any:
        return await self._method(name)(
            send.part.request,
            timeout=send.timeout_seconds,
            wait_for_ready=True,
            metadata=self._metadata + send.metadata,
        )

    async def _collect(
        self,
        calls: dict[asyncio.Task[Any], int],
        pulls: set[asyncio.Task[Part | None]],
        pipeline: Pipeline,
        seconds: float | None,
    ) -> None:
        """Tells the pipeline of what has ended; waits at most so long for the first."""
        if not calls and not pulls:
            await asyncio.sleep(seconds or 0.0)
            return
        ended, _ = await asyncio.wait([*calls, *pulls], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            if task in pulls:
                pulls.remove(task)
                pipeline.offer(task.result())
                continue
            index = calls.pop(task)
            if self._closed and (task.cancelled() or task.exception()):
                raise self._closed_error()
            error = task.exception()
            if error is None:
                pipeline.on_reply(index, task.result())
            elif isinstance(error, grpc.aio.AioRpcError):
                dice = random.random()  # noqa: S311 - jitter, not a secret
                pipeline.on_failure(index, Failure.of(error), now=time.monotonic(), dice=dice)
            else:
                raise error

    async def _failed(self, fail: Fail) -> Exception:
        diagnosis = None
        if ran_out_of_time(fail):
            try:
                await self._method("GetInfo")(
                    pb.GetInfoRequest(), timeout=DIAGNOSIS_SECONDS, wait_for_ready=False, metadata=self._metadata
                )
            except grpc.aio.AioRpcError as error:
                diagnosis = Failure.of(error)
        return self._error(fail, diagnosis)

    def _method(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Of a stub on the channel, which is opened when it is first needed.

        Raises:
            UsageError: The client is closed, or was first used in another event loop.
        """
        if self._closed:
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        if self._opened is None:
            self._opened = (open_async(self.target, self._channel_options), loop)
        elif self._opened[1] is not loop:
            raise UsageError(
                None, "the client was first used in another event loop; make one for each loop", 0, self.target
            )
        stub = embeddings_pb2_grpc.EmbeddingsStub(self._opened[0])  # type: ignore[no-untyped-call]
        method: Callable[..., Awaitable[Any]] = getattr(stub, name)
        return method


async def _next_or_none(parts: AsyncGenerator[Part]) -> Part | None:
    return await anext(parts, None)


async def _one(part: Part) -> AsyncGenerator[Part]:
    yield part


async def _split(inputs: AsyncInputs, options: EmbedOptions, size: PartSize) -> AsyncGenerator[Part]:
    """As splitting.split, of an async iterable, too."""
    if not isinstance(inputs, AsyncIterable):
        for part in split(inputs, options, size):
            yield part
        return
    splitter = Splitter(options, size)
    async for one in inputs:
        full = splitter.add(one)
        if full is not None:
            yield full
    last = splitter.finish()
    if last is not None:
        yield last
