"""A front end's engine: the main process's, asked through the link."""

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from sluice_server.engine_port import Computation, Reservation, Terms
from sluice_server.errors import OverloadedError, ServerFailedError, SluiceError
from sluice_server.frontends import frames
from sluice_server.frontends.frames import Frame, Kind, Part
from sluice_server.requests import TokenRows

if TYPE_CHECKING:
    from sluice_server.backend import ModelInfo

# For what the main process answers at once: it takes milliseconds, unless its event loop stands still.
_ANSWERED_WITHIN_SECONDS = 10.0
_RETRY_MS = 1000


class Sender(Protocol):
    """What of a Link is needed here."""

    @property
    def is_behind(self) -> bool:
        """The other side has not read what waits for it."""

    def send(self, kind: Kind, call: int = 0, *parts: Part) -> None:
        """Never blocks."""


class RemoteEngine:
    """An EnginePort. A caller that leaves is told to the engine at once, wherever its request is."""

    def __init__(self) -> None:
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
        number = next(self._numbers)
        await self._soon(Kind.RESERVE, number, frames.reservation(tokens, terms))
        return Reservation(number, tokens, partial(self._cancel, number))

    async def compute(self, rows: TokenRows, terms: Terms, reservation: Reservation | None = None) -> Computation:
        """See EnginePort; the engine ends it at its deadline."""
        number = next(self._numbers) if reservation is None else reservation.number
        return frames.read_answer(await self._ask(Kind.COMPUTE, number, *frames.rows(rows, terms)))

    async def health_document(self) -> Mapping[str, Any]:
        """See EnginePort."""
        document: Mapping[str, Any] = json.loads(await self._soon(Kind.ASK_HEALTH, next(self._numbers)))
        return document

    async def _soon(self, kind: Kind, number: int, *parts: Part) -> bytes:
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN_SECONDS):
                return await self._ask(kind, number, *parts)
        except TimeoutError:
            raise ServerFailedError("the process that computes does not answer") from None

    async def _ask(self, kind: Kind, number: int, *parts: Part) -> bytes:
        link = self._connected()
        if link.is_behind:
            self._cancel(number)
            raise OverloadedError("the process that computes does not read what it is asked", _RETRY_MS, "front_end")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        link.send(kind, number, *parts)
        try:
            return await future
        except SluiceError:
            raise
        except BaseException:
            # Also where the answer has come already: it may be a reservation that nobody will use.
            self._waiting.pop(number, None)
            self._cancel(number)
            raise

    def _cancel(self, number: int) -> None:
        self._connected().send(Kind.CANCEL, number)

    def _connected(self) -> Sender:
        assert self._link is not None, "nobody is served before the link is there"
        return self._link
