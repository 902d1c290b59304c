"""What gRPC's core has completed: awaited in a thread of its own, handed to the event loop many at a time."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from sluice_server.rpc.core.binding import cygrpc

logger = logging.getLogger(__name__)

# Then the loop hears of them, whatever else there is.
_MOST_EVENTS = 256
_NOTHING, _SHUT_DOWN = cygrpc.CompletionType.queue_timeout, cygrpc.CompletionType.queue_shutdown
# A look in vain reads one socket at most, and what it read may complete nothing. Before a pause, nothing should be left
# to be read; without one, the loop hears of each event at once, or of two if the second may be there.
_LOOKS_IN_VAIN_BEFORE_PAUSE, _LOOKS_FOR_MORE = 4, 1
# A moment that is past: the core says what there is, and does not wait.
_NOW = 0.0

# Given to the core with an operation; called in the event loop with the core's event once that is done, and with the
# moment, on the monotonic clock, at which the thread saw it.
Tag: TypeAlias = Callable[[Any, float], None]


class Completions:
    """A completion queue of gRPC's core whose events call their tags in the event loop.

    Args:
        pause_seconds: Asked in the event loop, at the start and each time it has heard of events: how long the thread
            then leaves the core alone.
        at_once: Given each event in the thread, as soon as it is seen. Where it has the core do something more, which
            may be done in a moment, it returns the event's tag for the event loop instead of its own; else None.
    """

    def __init__(self, pause_seconds: Callable[[], float], at_once: Callable[[Any], Tag | None]) -> None:
        self.queue = cygrpc.CompletionQueue()
        self._ask_pause, self._at_once = pause_seconds, at_once
        self._pause_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="grpc-core", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """From now on the running event loop hears of events."""
        self._loop = asyncio.get_running_loop()
        self._pause_seconds = self._ask_pause()
        self._thread.start()

    async def stop(self) -> None:
        """Once nothing is under way any more; returns when the thread has ended."""
        self.queue.shutdown()
        if self._loop is not None:
            await asyncio.to_thread(self._thread.join)

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (seen := self._hand_over()) is not None:
                # Of so many there may be more.
                if self._pause_seconds and seen < _MOST_EVENTS:
                    time.sleep(self._pause_seconds)
        except Exception:
            if self._loop is None or self._loop.is_closed():
                return  # the process ends
            # Nobody would ever be answered again.
            logger.exception("the thread that waits for gRPC failed; the server shuts down")
            os.kill(os.getpid(), signal.SIGTERM)

    def _hand_over(self) -> int | None:
        """Waits for the next events, and says how many came; None where the queue has ended."""
        events: list[tuple[Tag, Any]] = []
        looks_left = looks = _LOOKS_IN_VAIN_BEFORE_PAUSE if self._pause_seconds else 0
        event = self.queue.poll(None)
        while event.completion_type != _SHUT_DOWN:
            if event.completion_type == _NOTHING:
                looks_left -= 1
            else:
                tag = self._at_once(event)
                events.append((tag or event.tag, event))
                looks_left = looks or (_LOOKS_FOR_MORE if tag else 0)
            if looks_left <= 0 or len(events) == _MOST_EVENTS:
                break
            event = self.queue.poll(_NOW)
        if events:
            assert self._loop is not None, "the thread starts after the loop is known"
            self._loop.call_soon_threadsafe(self._tell, events, time.monotonic())
        return None if event.completion_type == _SHUT_DOWN else len(events)

    # --- in the event loop ----------------------------------------------------------------------

    def _tell(self, events: list[tuple[Tag, Any]], seen_at: float) -> None:
        for tag, event in events:
            try:
                tag(event, seen_at)
            except Exception:
                logger.exception("an event of gRPC's core was lost")
        self._pause_seconds = self._ask_pause()
