"""What ends calls, given to gRPC's core for all of them together."""

import asyncio
import logging
import time
from typing import Any

from sluice_server.rpc.core.completions import Tag

logger = logging.getLogger(__name__)


class Outbox:
    """Of the running event loop: what is put in during one round of it leaves at the end of that.

    Each answer is a write to a socket, and wakes whoever reads it. Of those that leave one right after the other the
    caller reads several at once, and the core's own code is in the caches for all but the first.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, tuple[Any, ...], Tag]] = []

    def put(self, core_call: Any, operations: tuple[Any, ...], tag: Tag) -> None:
        """Has the core carry out a call's last operations."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append((core_call, operations, tag))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for core_call, operations, tag in waiting:
            try:
                core_call.start_server_batch(operations, tag)
            except Exception:
                logger.exception("a call could not be ended")
                tag(None, time.monotonic())
