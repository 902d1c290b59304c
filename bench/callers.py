"""How each server is asked: one request in, its fate out. Answers are not parsed; what is needed stands in trailers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import grpc

from bench.header_blocks import value_of
from bench.http2 import Call, CallerLeftError, Http2Connection, LostConnectionError

_CONNECTIONS = 4
# So many calls one after the other go over the same one: what is sent together leaves in one write.
_NEIGHBOURS = 4
_SLUICE = "/sluice.v1.Embeddings/Embed"
_CORAL = "/gpu_inference.InferenceService/Infer"
_CODES = {str(code.value[0]): code.name for code in grpc.StatusCode}
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
    """What a server said; read when it is asked for, which may be when the load is over.

    Attributes:
        own_code: Of gRPC, where the server gave none.
        trailers: The server's, as they came.
    """

    own_code: str | None = None
    trailers: bytes = b""

    @property
    def code(self) -> str:
        """Of gRPC."""
        return self.own_code or _CODES.get(value_of(self.trailers, b"grpc-status") or "", "UNKNOWN")

    @property
    def drain_ms(self) -> float | None:
        """The server's estimate of its queue; None where there is none."""
        return self._number(b"sluice-drain-ms")

    @property
    def server_ms(self) -> float | None:
        """In the server's queue and on the device; None where it does not say."""
        queue, compute = self._number(b"sluice-queue-ms"), self._number(b"sluice-compute-ms")
        return None if queue is None or compute is None else queue + compute

    @property
    def pushback_ms(self) -> float | None:
        """When to come back; None where it does not say."""
        return self._number(b"grpc-retry-pushback-ms")

    def _number(self, name: bytes) -> float | None:
        value = value_of(self.trailers, name)
        return None if value is None else float(value)


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
        self._target, self._method = target, method
        self._connections: dict[int, Http2Connection] = {}
        self._connecting = asyncio.Lock()

    async def ask(
        self, request: Request, place: int, *, timeout_seconds: float, leave_after_seconds: float | None = None
    ) -> Reply:
        """See Caller."""
        number = place // _NEIGHBOURS % _CONNECTIONS
        connection = self._connections.get(number)
        if connection is None or not connection.usable:
            try:
                connection = await self._connect(number)
            except OSError:
                return Reply("UNAVAILABLE")
        calls = [connection.ask(message, timeout_seconds) for message in request.messages]
        patience = timeout_seconds if leave_after_seconds is None else leave_after_seconds
        code = "DEADLINE_EXCEEDED" if leave_after_seconds is None else "CANCELLED"
        given_up = asyncio.get_running_loop().call_later(patience, _give_up, connection, calls)
        try:
            # One call, the usual number, needs no more than its own future.
            if len(calls) == 1:
                return Reply(trailers=await calls[0][1])
            replies = [Reply(trailers=one) for one in await asyncio.gather(*(trailers for _, trailers in calls))]
        except CallerLeftError:
            return Reply(code)
        except LostConnectionError:
            return Reply("UNAVAILABLE")
        finally:
            given_up.cancel()
        return next((reply for reply in replies if reply.code != "OK"), replies[0])

    async def close(self) -> None:
        """See Caller."""
        for connection in self._connections.values():
            connection.close()

    async def _connect(self, number: int) -> Http2Connection:
        """There is none yet, or the server has said that it ends the one that was."""
        async with self._connecting:
            connection = self._connections.get(number)
            if connection is None or not connection.usable:
                host, port = self._target.rsplit(":", 1)
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Http2Connection(self._target, self._method), host, int(port)
                )
                self._connections[number] = connection
            return connection


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


def _give_up(connection: Http2Connection, calls: Sequence[Call]) -> None:
    for stream, _ in calls:
        connection.leave(stream)
