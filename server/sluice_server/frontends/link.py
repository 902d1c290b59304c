"""One end of the socket between a front end and the main process: frames in, frames out, on an event loop."""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from sluice_server.frontends.frames import Frame, FrameReader, Kind, Part, head

logger = logging.getLogger(__name__)

# What waits for the other side to read it; above, front ends refuse.
_MOST_WAITING_BYTES = 64 << 20
# The other side's event loop stands still; it will not turn again.
_READ_WITHIN_SECONDS = 30.0


class Link(asyncio.Protocol):
    """A stream of frames; those of one round of the event loop leave in one write.

    Args:
        take: Told of each frame.
        lost: Told once that the other side is gone.
    """

    def __init__(self, take: Callable[[Frame], None], lost: Callable[[], None]) -> None:
        self._take, self._lost = take, lost
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._out: list[Part] = []
        self._patience: asyncio.TimerHandle | None = None

    @property
    def is_behind(self) -> bool:
        """The other side has not read what waits for it."""
        return self._patience is not None

    def send(self, kind: Kind, call: int = 0, *parts: Part) -> None:
        """Never blocks; nothing happens where the other side is gone."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(head(kind, call, parts))
        self._out.extend(parts)

    def close(self) -> None:
        """Sends what was said, then ends the stream."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Ends the stream at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio tells it --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Frames can go."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MOST_WAITING_BYTES)

    def data_received(self, data: bytes) -> None:
        """Frames, whole or in pieces."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except Exception:
            logger.exception("a frame could not be read; the link ends")
            self.abort()

    def pause_writing(self) -> None:
        """The other side does not read; it has so long to go on."""
        self._patience = self._loop.call_later(_READ_WITHIN_SECONDS, self.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        """The other side ended, or one of us did not keep to the rules."""
        self.resume_writing()
        self._transport = None
        self._lost()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))
