"""Listens, and starts the method of each call."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc

from sluice_server.rpc.core.binding import core_credentials, cygrpc
from sluice_server.rpc.core.call import ServerCall
from sluice_server.rpc.core.completions import Completions, Tag
from sluice_server.rpc.core.method import Method
from sluice_server.rpc.core.outbox import Outbox

# So many calls may have been seen and not begun, which is when they know how long they waited; more wait in the core.
_MOST_SEEN = 4096
# To the core, after which it ends what is left of a stop; each step of it is its own work of a moment.
_STOPS_WITHIN_SECONDS = 10.0


class CoreServer:
    """A gRPC server on the running event loop; methods are those of grpc.aio, given a ServerCall as their context.

    grpc.aio takes one call at a time, and wakes the event loop for each of a call's four events: a call that does
    nothing took 0.20 to 0.23 ms of CPU, and takes 0.06 to 0.07 here (64 at once, two cores).

    Args:
        options: gRPC's channel arguments.
        pause_seconds: See Completions.
    """

    def __init__(self, options: Sequence[tuple[str, Any]], pause_seconds: Callable[[], float]) -> None:
        self._completions = Completions(pause_seconds, self._read_at_once)
        self._server = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._completions.queue)
        self._outbox = Outbox()
        self._methods: dict[bytes, Method] = {}
        self._is_serving = False
        self._calls_under_way = 0
        self._no_calls: asyncio.Future[None] | None = None

    def add_methods(self, service: str, methods: Mapping[str, Method]) -> None:
        """Of a service, by their names; before the start."""
        self._methods.update({f"/{service}/{name}".encode(): method for name, method in methods.items()})

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Returns the port; before the start.

        Raises:
            OSError: The address cannot be listened on.
        """
        port: int = self._server.add_http2_port(address.encode(), *core_credentials(credentials))
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        return port

    def start(self) -> None:
        """Serves from now on."""
        self._server.start()
        self._completions.start()
        self._is_serving = True
        for _ in range(_MOST_SEEN):
            self._ask()

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new calls, lets those under way end within the grace, then closes; nothing where it never served.

        Raises:
            TimeoutError: A method goes on though its call was cancelled.
        """
        if not self._is_serving:
            return
        self._is_serving = False
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server.shutdown(self._completions.queue, lambda _, __: stopped.set_result(None))
        _, unfinished = await asyncio.wait([stopped], timeout=grace_seconds)
        if unfinished:
            self._server.cancel_all_calls()
        async with asyncio.timeout(_STOPS_WITHIN_SECONDS):
            await stopped
            # The core is done with calls before their methods are, and aborts where they end on a queue that is shut.
            if self._calls_under_way:
                self._no_calls = asyncio.get_running_loop().create_future()
                await self._no_calls
        await self._completions.stop()
        self._server.destroy()

    def _ask(self) -> None:
        queue = self._completions.queue
        self._server.request_call(queue, queue, _no_call_came)

    def _read_at_once(self, event: Any) -> Tag | None:
        """In the thread that sees a call come: its message, mostly there by then, comes to the event loop with it."""
        if event.tag is not _no_call_came or not event.success:
            return None
        call = ServerCall(event, self._methods.get(event.call_details.method), self._outbox, self._on_call_over)
        call.read()
        return partial(self._on_call, call)

    def _on_call(self, call: ServerCall, _: Any, seen_at: float) -> None:
        self._calls_under_way += 1
        if self._is_serving:
            self._ask()
        call.begin(seen_at)

    def _on_call_over(self) -> None:
        self._calls_under_way -= 1
        if not self._calls_under_way and self._no_calls is not None:
            self._no_calls.set_result(None)


def _no_call_came(_: Any, __: float) -> None:
    """The tag of what was asked for: of the server that stops, as a call that comes gets its own."""
