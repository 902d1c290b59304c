"""Marked calls of the server to itself, that tell how long others wait until it sees them."""

import asyncio
import logging
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from sluice_server.rpc.accept_delay import AcceptDelay
from sluice_server.rpc.calls import Context

logger = logging.getLogger(__name__)

_SERVICE, _METHOD = "sluice.internal.AcceptProbe", "Pass"
_TIMEOUT_SECONDS = 10.0


class AcceptProbe:
    """Sends a marked call now and then while others come, and none while nobody comes.

    The calls go through a socket in a directory that only this process' user enters: it has neither TLS nor a port.

    Args:
        server: Whose queue it is; not started yet.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._delay = AcceptDelay()
        self._server = server
        self._directory: str | None = None
        self._channel: grpc.aio.Channel | None = None
        self._send: Any = None
        # A call that nobody holds is cancelled.
        self._calls: dict[bytes, Any] = {}

    def listen(self) -> None:
        """Before the server starts; where there can be no such socket, the log says so, and nothing is known."""
        try:
            self._directory = tempfile.mkdtemp(prefix="sluice-")
            address = f"unix:{Path(self._directory) / 'accept'}"
            self._server.add_insecure_port(address)
        except (OSError, RuntimeError) as error:
            logger.warning("how long calls wait in gRPC's queue stays unknown, as nothing can listen: %s", error)
            return
        handler = grpc.unary_unary_rpc_method_handler(self._pass)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
        self._channel = grpc.aio.insecure_channel(address)
        self._send = self._channel.unary_unary(f"/{_SERVICE}/{_METHOD}", None, None)

    def waited_ms(self) -> float | None:
        """Of the call that is served now; None while unknown. The probe sends its next one when this is asked."""
        now = asyncio.get_running_loop().time()
        if self._send is not None:
            mark = self._delay.next_mark(now)
            if mark is not None:
                self._calls[mark] = call = self._send(mark, timeout=_TIMEOUT_SECONDS)
                call.add_done_callback(partial(self._over, mark))
        seconds = self._delay.seconds(now)
        return None if seconds is None else 1000 * seconds

    async def stop(self) -> None:
        """Before the server stops."""
        if self._channel is not None:
            self._send = None
            await self._channel.close(None)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _pass(self, mark: bytes, context: Context) -> bytes:  # noqa: ARG002
        self._delay.accepted(mark, asyncio.get_running_loop().time())
        return b""

    def _over(self, mark: bytes, _: object) -> None:
        self._delay.over(mark)
        del self._calls[mark]
