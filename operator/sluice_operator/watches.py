"""Runs kopf in a thread of its own, for ever: it watches, and its news come to the operator's event loop.

Apart from the operator for two reasons. kopf cancels every task of its loop when it ends, and it ends for good on
what an API server in trouble may well answer: a refused token, a watch that ends with an error. The operator goes on
with what it knows, and the watches start anew. And when the process ends, the Lease is given back at once, while kopf
takes seconds to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import kopf

from sluice_operator import handlers as _handlers  # noqa: F401 - registers them
from sluice_operator import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

Json = dict[str, Any]

_LEAST_PAUSE_SECONDS = 1.0
_MOST_PAUSE_SECONDS = 15.0
_END_SECONDS = 5.0
"""How long kopf may take to end; the process does not wait longer for it."""


class Watches:
    """All watches of one operator; `saw` is called on the loop that started them."""

    def __init__(self, saw: Callable[[str | None, Json], None], namespaces: Sequence[str], *, identity: str) -> None:
        self._saw = saw
        self._namespaces = namespaces
        self._identity = identity
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)
        self._home: asyncio.AbstractEventLoop | None = None
        self._stop_one: Callable[[], object] | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Starts to watch; returns at once."""
        self._home = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Stops to watch."""
        self._stopped.set()
        if self._stop_one is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself this very moment
                self._stop_one()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _END_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether the thread that watches still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = _LEAST_PAUSE_SECONDS
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                asyncio.run(self._watch())
            except Exception as error:  # noqa: BLE001 - whatever it is, the watches are needed
                log.warning("the watches ended and start anew in %.0f s: %s", pause, str(error) or type(error).__name__)
            if self._stopped.is_set():
                return
            metrics.WATCH_RESTARTS.inc()
            if time.monotonic() - began > _MOST_PAUSE_SECONDS:
                pause = _LEAST_PAUSE_SECONDS
            self._stopped.wait(pause)
            pause = min(2 * pause, _MOST_PAUSE_SECONDS)

    async def _watch(self) -> None:
        loop, stop_flag = asyncio.get_running_loop(), asyncio.Event()
        self._stop_one = lambda: loop.call_soon_threadsafe(stop_flag.set)
        if self._stopped.is_set():
            return
        await kopf.operator(
            registry=kopf.get_default_registry(),
            memo=kopf.Memo(saw=self._hand_over),
            # Its own guess needs a user name, and the container's user has none.
            identity=self._identity,  # type: ignore[arg-type]
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=stop_flag,
        )

    def _hand_over(self, event_type: str | None, body: Json) -> None:
        if self._home is not None and not self._home.is_closed():
            self._home.call_soon_threadsafe(self._saw, event_type, body)
