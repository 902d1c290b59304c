"""How each server is asked: one request in, its fate out. Answers are not parsed; what is needed stands in trailers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import grpc

_CONNECTIONS = 4
_SLUICE = "/sluice.v1.Embeddings/Embed"
_CORAL = "/gpu_inference.InferenceService/Infer"
_HTTP_CODES = {200: "OK", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, made beforehand.

    Attributes:
        messages: Serialized; more than one where a peer takes one length each. All are sent at once.
        tokens: It asks for, padding excluded.
        padded_tokens: That the caller itself adds, as the peer wants it.
    """

    messages: tuple[bytes, ...]
    tokens: int
    padded_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said.

    Attributes:
        code: Of gRPC.
        drain_ms: The server's estimate of its queue; None where there is none.
        server_ms: In the server's queue and on the device; None where it does not say.
        pushback_ms: When to come back; None where it does not say.
    """

    code: str
    drain_ms: float | None = None
    server_ms: float | None = None
    pushback_ms: float | None = None


class Caller(Protocol):
    """Connections to one server."""

    async def ask(
        self, request: Request, place: int, *, timeout_seconds: float, leave_after_seconds: float | None = None
    ) -> Reply:
        """Sends one request on the connection of its place; may leave before the answer."""

    async def close(self) -> None:
        """Ends the connections."""


class GrpcCaller:
    """Unary calls of bytes over a few connections."""

    def __init__(self, target: str, method: str) -> None:
        # Options that differ keep gRPC from sharing one connection.
        self._channels = [
            grpc.aio.insecure_channel(target, options=[("bench.connection", place)]) for place in range(_CONNECTIONS)
        ]
        self._calls = [channel.unary_unary(method, None, None) for channel in self._channels]

    async def ask(
        self, request: Request, place: int, *, timeout_seconds: float, leave_after_seconds: float | None = None
    ) -> Reply:
        """See Caller."""
        stub = self._calls[place % len(self._calls)]
        calls = [stub(message, timeout=timeout_seconds) for message in request.messages]
        if leave_after_seconds is not None:
            for call in calls:
                asyncio.get_running_loop().call_later(leave_after_seconds, call.cancel)
        replies = [await _reply(call) for call in calls]
        return next((reply for reply in replies if reply.code != "OK"), replies[0])

    async def close(self) -> None:
        """See Caller."""
        for channel in self._channels:
            await channel.close(grace=None)


class HttpCaller:
    """POSTs of JSON over connections that are kept."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "application/json"}
        )

    async def ask(
        self, request: Request, place: int, *, timeout_seconds: float, leave_after_seconds: float | None = None
    ) -> Reply:
        """See Caller; the place does not matter, and whoever leaves says so by a time-out."""
        del place
        patience = min(timeout_seconds, leave_after_seconds or timeout_seconds)
        try:
            timeout = aiohttp.ClientTimeout(total=patience)
            async with self._session.post(self._url, data=request.messages[0], timeout=timeout) as response:
                await response.read()
                return Reply(_HTTP_CODES.get(response.status, f"HTTP_{response.status}"))
        except TimeoutError:
            return Reply("DEADLINE_EXCEEDED")
        except aiohttp.ClientError as error:
            return Reply(type(error).__name__)

    async def close(self) -> None:
        """See Caller."""
        await self._session.close()


def sluice(target: str) -> Caller:
    """Sluice's own API."""
    return GrpcCaller(target, _SLUICE)


def coral(target: str) -> Caller:
    """coral-gpu-inference's API."""
    return GrpcCaller(target, _CORAL)


async def _reply(call: Any) -> Reply:
    code = (await call.code()).name
    trailers = {} if code == "CANCELLED" else dict(await call.trailing_metadata() or ())
    queue, compute = _number(trailers, "sluice-queue-ms"), _number(trailers, "sluice-compute-ms")
    return Reply(
        code,
        _number(trailers, "sluice-drain-ms"),
        None if queue is None or compute is None else queue + compute,
        _number(trailers, "grpc-retry-pushback-ms"),
    )


def _number(trailers: Mapping[str, Any], name: str) -> float | None:
    value = trailers.get(name)
    return None if value is None else float(value)
