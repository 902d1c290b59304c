"""A front end's engine: the main process's, asked through the link."""

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from sluice_server.counters import Counters
from sluice_server.engine_port import Computation, Reservation
from sluice_server.errors import OverloadedError, ServerFailedError, SluiceError
from sluice_server.frontends import frames
from sluice_server.frontends.frames import Frame, Kind, Part
from sluice_server.requests import Terms, TokenRows

if TYPE_CHECKING:
    from sluice_server.backend import ModelInfo

# For what the main process answers at once: it takes milliseconds, unless its event loop stands still.
_ANSWERED_WITHIN_SECONDS = 10.0
_RETRY_MS = 1000
_REASON = "front_end"


class Sender(Protocol):
    """What of a Link is needed here."""

    @property
    def is_behind(self) -> bool:
        """The other side has not read what waits for it."""

    def send(self, kind: Kind, call: int = 0, *parts: Part) -> None:
        """Never blocks."""


class RemoteEngine:
    """An EnginePort. A caller that leaves is told to the engine at once, wherever its request is.

    Args:
        counters: Of what is refused here, before the engine hears of it.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.info: ModelInfo | None = None
        self.fingerprint: str | None = None
        self._link: Sender | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = count(1)

    def connect(self, link: Sender) -> None:
        """Requests go this way."""
        self._link = link

    def take(self, frame: Frame) -> None:
        """An answer came; nobody may wait for it any more."""
        future = self._waiting.pop(frame.call, None)
        if future is None or future.done():
            return
        if frame.kind == Kind.ERROR:
            future.set_exception(frames.read_error(frame.body))
        else:
            future.set_result(frame.body)

    async def reserve(self, tokens: int, terms: Terms) -> Reservation:
        """See EnginePort."""
        self._check_reads(tokens)
        number = next(self._numbers)
        await self._soon(Kind.RESERVE, number, frames.reservation(tokens, terms))
        return Reservation(number, tokens, partial(self._cancel, number))

    async def compute(self, rows: TokenRows, terms: Terms, reservation: Reservation | None = None) -> Computation:
        """See EnginePort; the engine ends it at its deadline."""
        try:
            self._check_reads(rows.total_tokens)
        except OverloadedError:
            if reservation is not None:
                reservation.release()
            raise
        number = next(self._numbers) if reservation is None else reservation.number
        return frames.read_answer(await self._ask(Kind.COMPUTE, number, *frames.rows(rows, terms)))

    def ahead_ms(self) -> float | None:
        """See EnginePort; it would have to be asked for."""
        return None

    async def health_document(self) -> Mapping[str, Any]:
        """See EnginePort."""
        self._check_reads(0)
        document: Mapping[str, Any] = json.loads(await self._soon(Kind.ASK_HEALTH, next(self._numbers)))
        return document

    async def _soon(self, kind: Kind, number: int, *parts: Part) -> bytes:
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN_SECONDS):
                return await self._ask(kind, number, *parts)
        except TimeoutError:
            raise ServerFailedError("the process that computes does not answer") from None

    async def _ask(self, kind: Kind, number: int, *parts: Part) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._connected().send(kind, number, *parts)
        try:
            return await future
        except SluiceError:
            raise
        except BaseException:
            # Also where the answer has come already: it may be a reservation that nobody will use.
            self._waiting.pop(number, None)
            self._cancel(number)
            raise

    def _check_reads(self, tokens: int) -> None:
        """Refuses where what was asked before is not read."""
        if self._connected().is_behind:
            self._counters.reject(_REASON, tokens)
            raise OverloadedError("the process that computes does not read what it is asked", _RETRY_MS, _REASON)

    def _cancel(self, number: int) -> None:
        self._connected().send(Kind.CANCEL, number)

    def _connected(self) -> Sender:
        assert self._link is not None, "nobody is served before the link is there"
        return self._link
