"""The blocking client."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


class EmbeddingClient:
    """Embeds any number of inputs over all pods of a service; safe to share between threads.

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
        self._threads = ThreadPoolExecutor(max_in_flight, thread_name_prefix="sluice-client")

    def embed(self, inputs: Inputs, options: EmbedOptions = _DEFAULTS) -> NDArray[np.generic]:
        """Embeds texts, or rows of token ids; returns (inputs, dimensions) in their order.

        Raises:
            EmbeddingError: A part was refused for good or was not answered before the deadline.
        """
        return requests.join(list(self.embed_parts(inputs, options)))

    def embed_parts(self, inputs: Inputs, options: EmbedOptions = _DEFAULTS) -> Iterator[NDArray[np.generic]]:
        """Like embed(), but yields the rows part by part, in order, as they come."""
        deadline = time.monotonic() + self._deadline_seconds
        parts = requests.split(inputs, options, max_inputs=self._max_inputs, max_bytes=self._max_bytes)
        futures = [self._threads.submit(self._send, part, deadline) for part in parts]
        try:
            for future in futures:
                yield requests.decode(future.result())
        finally:
            for future in futures:
                future.cancel()

    def info(self) -> pb.GetInfoResponse:
        """What the service serves: model, dimension, limits."""
        deadline = time.monotonic() + self._deadline_seconds
        reply: pb.GetInfoResponse = self._retrying(self._stub.GetInfo, pb.GetInfoRequest(), deadline)
        return reply

    def close(self) -> None:
        """Ends the connections; requests under way fail."""
        self._channel.close()
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: pb.EmbedRequest, deadline: float) -> pb.EmbedResponse:
        reply: pb.EmbedResponse = self._retrying(self._stub.Embed, request, deadline)
        return reply

    def _retrying(self, method: Callable[..., Reply], request: object, deadline: float) -> Reply:
        attempt = 0
        while True:
            attempt += 1
            remaining = max(0.0, deadline - time.monotonic())
            try:
                return method(request, timeout=remaining, wait_for_ready=True, metadata=self._metadata)
            except grpc.RpcError as error:
                verdict = retry.after_failure(
                    error.code(),
                    error.trailing_metadata() or (),
                    attempt=attempt,
                    remaining_seconds=deadline - time.monotonic(),
                    dice=random.random(),  # noqa: S311 - jitter, not a secret
                )
                if isinstance(verdict, retry.GiveUp):
                    raise EmbeddingError(error.code(), error.details() or "", attempt) from error
                time.sleep(verdict.seconds)


def _open(target: str, options: ChannelOptions) -> grpc.Channel:
    if options.root_certificates is None:
        return grpc.insecure_channel(target, options=options.grpc_options())
    credentials = grpc.ssl_channel_credentials(
        options.root_certificates, options.private_key, options.certificate_chain
    )
    return grpc.secure_channel(target, credentials, options=options.grpc_options())
