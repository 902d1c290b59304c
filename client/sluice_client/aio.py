"""The asyncio client: the same calls as the blocking one."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc

from sluice_client import requests, retry
from sluice_client.channel import ChannelOptions
from sluice_client.errors import EmbeddingError
from sluice_client.requests import EmbedOptions, Inputs

_DEFAULTS = EmbedOptions()

Reply = TypeVar("Reply")


class AsyncEmbeddingClient:
    """Embeds any number of inputs over all pods of a service, from one event loop.

    Args:
        target: `dns:///NAME-headless:50051` to balance over the pods of the EmbeddingService NAME.
        channel_options: TLS, token, message size.
        deadline_seconds: For one call of embed(), retries included.
        max_inputs_per_request: Larger inputs are split.
        max_request_bytes: Larger inputs are split.
        max_in_flight: So many requests are under way at once.
    """

    def __init__(
        self,
        target: str,
        *,
        channel_options: ChannelOptions | None = None,
        deadline_seconds: float = 60.0,
        max_inputs_per_request: int = 64,
        max_request_bytes: int = 1 << 20,
        max_in_flight: int = 8,
    ) -> None:
        options = channel_options or ChannelOptions()
        self._metadata = options.metadata
        self._deadline_seconds = deadline_seconds
        self._max_inputs = max_inputs_per_request
        self._max_bytes = max_request_bytes
        self._channel = _open(target, options)
        self._stub = embeddings_pb2_grpc.EmbeddingsStub(self._channel)  # type: ignore[no-untyped-call]
        self._in_flight = asyncio.Semaphore(max_in_flight)

    async def embed(self, inputs: Inputs, options: EmbedOptions = _DEFAULTS) -> NDArray[np.generic]:
        """Embeds texts, or rows of token ids; returns (inputs, dimensions) in their order.

        Raises:
            EmbeddingError: A part was refused for good or was not answered before the deadline; the
                parts still under way are cancelled.
        """
        deadline = time.monotonic() + self._deadline_seconds
        parts = requests.split(inputs, options, max_inputs=self._max_inputs, max_bytes=self._max_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._send(part, deadline)) for part in parts]
        except* EmbeddingError as errors:
            raise errors.exceptions[0] from None
        return requests.join([requests.decode(task.result()) for task in tasks])

    async def info(self) -> pb.GetInfoResponse:
        """What the service serves: model, dimension, limits."""
        deadline = time.monotonic() + self._deadline_seconds
        return await self._retrying(self._stub.GetInfo, pb.GetInfoRequest(), deadline)

    async def close(self) -> None:
        """Ends the connections; requests under way fail."""
        await self._channel.close(grace=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, request: pb.EmbedRequest, deadline: float) -> pb.EmbedResponse:
        async with self._in_flight:
            return await self._retrying(self._stub.Embed, request, deadline)

    async def _retrying(self, method: Callable[..., Awaitable[Reply]], request: object, deadline: float) -> Reply:
        attempt = 0
        while True:
            attempt += 1
            remaining = max(0.0, deadline - time.monotonic())
            try:
                return await method(request, timeout=remaining, wait_for_ready=True, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                verdict = retry.after_failure(
                    error.code(),
                    error.trailing_metadata() or (),
                    attempt=attempt,
                    remaining_seconds=deadline - time.monotonic(),
                    dice=random.random(),  # noqa: S311 - jitter, not a secret
                )
                if isinstance(verdict, retry.GiveUp):
                    raise EmbeddingError(error.code(), error.details() or "", attempt) from error
                await asyncio.sleep(verdict.seconds)


def _open(target: str, options: ChannelOptions) -> grpc.aio.Channel:
    if options.root_certificates is None:
        return grpc.aio.insecure_channel(target, options=options.grpc_options())
    credentials = grpc.ssl_channel_credentials(
        options.root_certificates, options.private_key, options.certificate_chain
    )
    return grpc.aio.secure_channel(target, credentials, options=options.grpc_options())
