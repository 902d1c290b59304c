"""One HTTP/2 connection (RFC 9113) of a gRPC client that does little else: unary calls of bytes, their trailers back.

gRPC's own client costs 0.33 ms of a core for each call in Python: at a thousand calls a second on two cores it would
take a sixth of the machine from the server that it measures. This one costs less than half of that. Answers are
counted, not kept: what is needed of them stands in the trailers.
"""

import asyncio
import struct
from collections import deque
from typing import cast

from bench.header_blocks import RequestHeaders

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_INITIAL_WINDOW_SETTING, _FRAME_SIZE_SETTING, _TABLE_SIZE_SETTING, _PUSH_SETTING = 4, 5, 1, 2
_FRAME_HEAD = 9
_WIDEST_WINDOW = (1 << 31) - 1
# Told again once so much has come: answers never wait for it.
_WINDOW_STEP = 1 << 28
_CANCEL = struct.pack(">I", 8)

Call = tuple[int, "asyncio.Future[bytes]"]
"""A stream's number, and the block of its trailers once it ends."""


class CallerLeftError(Exception):
    """The caller waits no longer: it left, or its time was up."""


class LostConnectionError(ConnectionError):
    """The connection ended, or the server ended the stream without a status."""


class Http2Connection(asyncio.Protocol):
    """Calls of one method.

    Args:
        authority: Host and port.
        method: /package.Service/Method.
    """

    def __init__(self, authority: str, method: str) -> None:
        self._headers = RequestHeaders(authority, method)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._next_stream = 1
        self._received = bytearray()
        self._out: list[bytes] = []
        # Of bodies that the server's windows hold back: stream, and what is left.
        self._held: deque[tuple[int, bytes]] = deque()
        self._stream_windows: dict[int, int] = {}
        self._window = self._initial_window = 65_535
        self._frame_size = 16_384
        self._unacknowledged = 0
        self.usable = False

    def ask(self, message: bytes, timeout_seconds: float) -> Call:
        """Sends one message; the future ends with the trailers.

        Returns:
            The stream's number, for `leave`, and the future; it fails with LostConnectionError or CallerLeftError.
        """
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[stream] = future
        self._stream_windows[stream] = self._initial_window
        self._send(_HEADERS, _END_HEADERS, stream, self._headers.block(timeout_seconds))
        self._held.append((stream, struct.pack(">BI", 0, len(message)) + message))
        self._send_bodies()
        return stream, future

    def leave(self, stream: int) -> None:
        """The caller waits no longer: the server hears it."""
        future = self._calls.pop(stream, None)
        self._stream_windows.pop(stream, None)
        if future is not None:
            self._send(_RESET, 0, stream, _CANCEL)
            if not future.done():
                future.set_exception(CallerLeftError)

    def close(self) -> None:
        """Ends the connection; calls under way fail."""
        if self._transport is not None:
            self._transport.close()

    # --- what asyncio tells it --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says what this client takes."""
        self._transport, self.usable = cast("asyncio.Transport", transport), True
        settings = ((_TABLE_SIZE_SETTING, 0), (_PUSH_SETTING, 0), (_INITIAL_WINDOW_SETTING, _WIDEST_WINDOW))
        self._transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings))
        self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WIDEST_WINDOW - 65_535))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits hears it."""
        self.usable = False
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done():
                future.set_exception(LostConnectionError(str(exc or "the server closed the connection")))

    def data_received(self, data: bytes) -> None:
        """Frames, whole or in pieces."""
        received = self._received
        received += data
        place, end = 0, len(received)
        while end - place >= _FRAME_HEAD:
            length = received[place] << 16 | received[place + 1] << 8 | received[place + 2]
            after = place + _FRAME_HEAD + length
            if after > end:
                break
            stream = int.from_bytes(received[place + 5 : place + 9], "big") & 0x7FFFFFFF
            self._take(received[place + 3], received[place + 4], stream, received, place + _FRAME_HEAD, after)
            place = after
        del received[:place]

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, kind: int, flags: int, stream: int, received: bytearray, begin: int, end: int) -> None:
        if kind == _DATA:
            self._count(end - begin)
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                self._end(stream, bytes(received[begin:end]))
        elif kind == _WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(received[begin:end], "big"))
        elif kind == _RESET:
            self._fail(stream, f"the server reset the stream ({int.from_bytes(received[begin:end], 'big')})")
        elif kind == _SETTINGS and not flags & _ACK:
            self._follow(bytes(received[begin:end]))
        elif kind == _PING and not flags & _ACK:
            self._send(_PING, _ACK, 0, bytes(received[begin:end]))
        elif kind == _GO_AWAY:
            # Calls under way end; the next ones go elsewhere.
            self.usable = False

    def _count(self, size: int) -> None:
        self._unacknowledged += size
        if self._unacknowledged > _WINDOW_STEP:
            self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged))
            self._unacknowledged = 0

    def _end(self, stream: int, block: bytes) -> None:
        future = self._calls.pop(stream, None)
        self._stream_windows.pop(stream, None)
        if future is not None and not future.done():
            future.set_result(block)

    def _fail(self, stream: int, why: str) -> None:
        future = self._calls.pop(stream, None)
        self._stream_windows.pop(stream, None)
        if future is not None and not future.done():
            future.set_exception(LostConnectionError(why))

    def _follow(self, settings: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", settings):
            if name == _FRAME_SIZE_SETTING:
                self._frame_size = value
            elif name == _INITIAL_WINDOW_SETTING:
                for stream in self._stream_windows:
                    self._stream_windows[stream] += value - self._initial_window
                self._initial_window = value
        self._send(_SETTINGS, _ACK, 0, b"")
        self._send_bodies()

    def _widen(self, stream: int, by: int) -> None:
        if stream == 0:
            self._window += by
        elif stream in self._stream_windows:
            self._stream_windows[stream] += by
        self._send_bodies()

    def _send_bodies(self) -> None:
        """As much as the server's windows allow, in the order of the calls."""
        while self._held:
            stream, body = self._held[0]
            if stream not in self._stream_windows:
                self._held.popleft()
                continue
            size = min(len(body), self._frame_size, self._window, self._stream_windows[stream])
            if size <= 0:
                return
            self._window -= size
            self._stream_windows[stream] -= size
            self._send(_DATA, _END_STREAM if size == len(body) else 0, stream, body[:size])
            if size == len(body):
                self._held.popleft()
            else:
                self._held[0] = (stream, body[size:])

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Frames of one round of the event loop leave in one write."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(struct.pack(">IBI", len(payload) << 8 | kind, flags, stream))
        self._out.append(payload)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))
