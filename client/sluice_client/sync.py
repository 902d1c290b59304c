"""The blocking client."""

import contextlib
import os
import queue
import random
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc

from sluice_client.base import DIAGNOSIS_SECONDS, BaseClient, no_single_text, ran_out_of_time, request_part
from sluice_client.channel import open_sync
from sluice_client.errors import UnavailableError
from sluice_client.pipeline import Emit, Fail, Pipeline, Pull, Send, Wait
from sluice_client.requests import EmbedOptions, Inputs
from sluice_client.results import Embedded, Rows
from sluice_client.retry import Failure
from sluice_client.splitting import Part, ServiceLimits, split

_DEFAULTS = EmbedOptions()
# What a forked child inherits stays open there: closing it would disturb the parent.
_inherited: list[grpc.Channel] = []


class EmbeddingClient(BaseClient):
    """Embeds any number of inputs over all pods of a service; safe to share between threads, and has none itself.

    It connects when it is first used, and anew in a child process after a fork.
    """

    _opened: tuple[grpc.Channel, int] | None = None

    def embed(
        self, inputs: Inputs, options: EmbedOptions = _DEFAULTS, *, deadline_seconds: float | None = None
    ) -> NDArray[np.generic]:
        """Embeds texts, or rows of token ids; returns (inputs, dimensions) in their order.

        Args:
            inputs: Read once.
            options: Of every input.
            deadline_seconds: For all of them, retries included; default: the client's.

        Raises:
            TypeError: The inputs are no texts and no rows of token ids.
            EmbeddingError: A part was refused for good or not answered before the deadline; the parts
                still under way are cancelled.
        """
        no_single_text(inputs)
        deadline = self._deadline(deadline_seconds)
        limits = self._limits(deadline)
        rows = Rows(inputs, options, limits.dimension, self.target)
        parts = split(inputs, options, self._part_size(limits))
        for emit in self._run("Embed", parts, self._pipeline(deadline=deadline)):
            rows.add(self._embedded(emit))
        return rows.result()

    def embed_iter(
        self, inputs: Inputs, options: EmbedOptions = _DEFAULTS, *, deadline_seconds: float | None = None
    ) -> Iterator[Embedded]:
        """Embeds inputs of any number in bounded memory; yields runs of them with their rows, in order.

        Args:
            inputs: Read as far ahead as requests are under way, and no further. While a slow source is being
                read, what is answered waits; the asyncio client reads an async source beside its requests.
            options: Of every input.
            deadline_seconds: For each request, from when it is first sent, retries included; default: the
                client's.

        Raises:
            TypeError: As embed().
            EmbeddingError: As embed(); what was yielded before stays good.
        """
        no_single_text(inputs)
        return self._embed_iter(inputs, options, self._seconds(deadline_seconds))

    def info(self, *, deadline_seconds: float | None = None) -> pb.GetInfoResponse:
        """What the service serves: model, dimension, limits.

        Raises:
            EmbeddingError: It was not told before the deadline.
        """
        info = self._ask_info(self._deadline(deadline_seconds))
        with contextlib.suppress(UnavailableError):  # a model that is not loaded yet is told as it is
            self._learn(info)
        return info

    def close(self) -> None:
        """Ends the connections; requests under way in other threads fail. Closing again does nothing."""
        with self._lock:
            opened, self._opened, self._closed = self._opened, None, True
        if opened is not None:
            self._leave(*opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _embed_iter(self, inputs: Inputs, options: EmbedOptions, seconds: float) -> Iterator[Embedded]:
        limits = self._limits(time.monotonic() + seconds)
        parts = split(inputs, options, self._part_size(limits))
        for emit in self._run("Embed", parts, self._pipeline(part_seconds=seconds)):
            yield self._embedded(emit)

    def _limits(self, deadline: float) -> ServiceLimits:
        return self._known_limits() or self._learn(self._ask_info(deadline))

    def _ask_info(self, deadline: float) -> pb.GetInfoResponse:
        parts = iter([request_part(pb.GetInfoRequest())])
        (emit,) = self._run("GetInfo", parts, self._pipeline(deadline=deadline))
        reply: pb.GetInfoResponse = emit.reply
        return reply

    def _run(self, name: str, parts: Iterator[Part], pipeline: Pipeline) -> Iterator[Emit]:
        """Does what the pipeline says, in the caller's own thread; gRPC's only tells which call has ended."""
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        calls: dict[int, Any] = {}
        try:
            while True:
                step = pipeline.next(time.monotonic())
                if isinstance(step, Send):
                    index = step.part.index
                    calls[index] = call = self._send(name, step)
                    call.add_done_callback(lambda _call, index=index: ended.put(index))
                elif isinstance(step, Pull):
                    pipeline.offer(next(parts, None))
                elif isinstance(step, Emit):
                    yield step
                elif isinstance(step, Fail):
                    raise self._failed(step)
                elif not isinstance(step, Wait):
                    return
                self._collect(ended, calls, pipeline, step.seconds if isinstance(step, Wait) else 0.0)
        finally:
            for call in calls.values():
                call.cancel()

    def _send(self, name: str, send: Send) -> Any:
        method = self._method(name)
        try:
            return method.future(
                send.part.request,
                timeout=send.timeout_seconds,
                wait_for_ready=True,
                metadata=self._metadata + send.metadata,
            )
        except ValueError as error:
            if self._closed:
                raise self._closed_error() from error
            raise

    def _collect(
        self, ended: "queue.SimpleQueue[int]", calls: dict[int, Any], pipeline: Pipeline, seconds: float | None
    ) -> None:
        """Tells the pipeline of the calls that have ended; waits at most so long for the first."""
        try:
            while True:
                call = calls.pop(index := ended.get(timeout=seconds))
                seconds = 0.0
                if call.code() is grpc.StatusCode.OK:
                    pipeline.on_reply(index, call.result())
                elif self._closed:
                    raise self._closed_error()
                else:
                    dice = random.random()  # noqa: S311 - jitter, not a secret
                    pipeline.on_failure(index, Failure.of(call), now=time.monotonic(), dice=dice)
        except queue.Empty:
            pass

    def _failed(self, fail: Fail) -> Exception:
        diagnosis = None
        if ran_out_of_time(fail):
            try:
                self._method("GetInfo")(
                    pb.GetInfoRequest(),
                    timeout=DIAGNOSIS_SECONDS,
                    wait_for_ready=False,
                    metadata=self._metadata,
                )
            except grpc.RpcError as error:
                diagnosis = Failure.of(error)
        return self._error(fail, diagnosis)

    def _method(self, name: str) -> Any:
        """Of a stub on this process's channel, which is opened when it is first needed."""
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if self._opened is not None and self._opened[1] != os.getpid():
                self._leave(*self._opened)
                self._opened = None
            if self._opened is None:
                self._opened = (open_sync(self.target, self._channel_options), os.getpid())
            channel = self._opened[0]
        return getattr(embeddings_pb2_grpc.EmbeddingsStub(channel), name)  # type: ignore[no-untyped-call]

    @staticmethod
    def _leave(channel: grpc.Channel, pid: int) -> None:
        if pid == os.getpid():
            channel.close()
        else:
            _inherited.append(channel)
