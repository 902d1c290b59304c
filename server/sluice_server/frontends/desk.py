"""The main process's side of one front end: takes its requests to the engine and its observations to the metrics.

Callbacks only, no task for a request: here every front end's requests meet, and this loop is the limit of them all.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sluice_server import health
from sluice_server.engine import Engine
from sluice_server.errors import SluiceError
from sluice_server.frontends import frames
from sluice_server.frontends.frames import Frame, FramingError, Kind
from sluice_server.frontends.link import Link
from sluice_server.local_engine import computation
from sluice_server.observability.observations import Observations, UnderWay

if TYPE_CHECKING:
    from sluice_server.requests import PendingRequest

logger = logging.getLogger(__name__)

# A text is tokenized in milliseconds, so nobody comes for it any more.
_RESERVED_FOR_SECONDS = 60.0


class Desk:
    """One front end's requests; what is left of them is given back when it is gone.

    Args:
        engine: Admits and computes.
        observe: Told what became of its requests.
    """

    def __init__(self, engine: Engine, observe: Callable[[Observations], None]) -> None:
        loop = asyncio.get_running_loop()
        self.link = Link(self._take, self._close)
        self.listening: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.heard_at = loop.time()
        self._loop = loop
        self._engine = engine
        self._observe = observe
        self._under_way = UnderWay()
        # Tokens and since when, in the order in which they came.
        self._reserved: dict[int, tuple[int, float]] = {}
        self._requests: dict[int, PendingRequest] = {}
        self._takers: dict[int, Callable[[int, bytes], None]] = {
            Kind.RESERVE: self._reserve,
            Kind.COMPUTE: self._compute,
            Kind.CANCEL: self._cancel,
            Kind.ASK_HEALTH: self._tell_health,
            Kind.OBSERVATIONS: self._note,
            Kind.LISTENING: self._listens,
            Kind.BEAT: self._beats,
        }

    @property
    def listens(self) -> bool:
        """Callers reach it."""
        return self.listening.done() and not self.gone.done() and self.listening.exception() is None

    def _take(self, frame: Frame) -> None:
        taker = self._takers.get(frame.kind)
        if taker is None:
            raise FramingError(f"a frame of kind {frame.kind}; expected a front end's")
        self.heard_at = self._loop.time()
        try:
            taker(frame.call, frame.body)
        except SluiceError as error:
            self.link.send(Kind.ERROR, frame.call, frames.error(error))
        except FramingError:
            raise
        except Exception:
            logger.exception("a front end's request failed in the server's own code")
            self._cancel(frame.call, b"")
            ours = SluiceError("the server failed on this request; its log has the cause")
            self.link.send(Kind.ERROR, frame.call, frames.error(ours))

    def _reserve(self, call: int, body: bytes) -> None:
        tokens, terms = frames.read_reservation(body)
        self._engine.reserve(tokens, terms)
        self._reserved[call] = tokens, self.heard_at
        self.link.send(Kind.ADMITTED, call)

    def _compute(self, call: int, body: bytes) -> None:
        rows, terms = frames.read_rows(body)
        reserved = self._reserved.pop(call, None)
        if reserved is None:
            self._engine.reserve(rows.total_tokens, terms)
        else:
            self._engine.settle(reserved[0], rows.total_tokens, is_repeated=terms.is_repeated)
        try:
            request = self._engine.begin(rows, terms)
        except BaseException:
            self._engine.release(rows.total_tokens)
            raise
        self._requests[call] = request
        request.future.add_done_callback(partial(self._answer, call))

    def _answer(self, call: int, future: "asyncio.Future[None]") -> None:
        request = self._requests.pop(call)
        self._engine.finish(request)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self.link.send(Kind.ANSWER, call, *frames.answer(computation(self._engine, request)))
        else:
            told = error if isinstance(error, SluiceError) else SluiceError(str(error))
            self.link.send(Kind.ERROR, call, frames.error(told))

    def _cancel(self, call: int, _: bytes) -> None:
        """The caller left: what was reserved or queued for it is free again, wherever it was."""
        reserved = self._reserved.pop(call, None)
        if reserved is not None:
            self._engine.release(reserved[0])
        request = self._requests.get(call)
        if request is not None:
            request.future.cancel()

    def _beats(self, _: int, __: bytes) -> None:
        """Gives back what was reserved and never computed or given back: by a mistake, or by a task that hangs."""
        while self._reserved:
            call, (tokens, since) = next(iter(self._reserved.items()))
            if self.heard_at - since < _RESERVED_FOR_SECONDS:
                return
            logger.error("a front end reserved %d tokens and never came for them", tokens)
            self._cancel(call, b"")

    def _tell_health(self, call: int, _: bytes) -> None:
        self.link.send(Kind.HEALTH, call, json.dumps(health.document(self._engine.facts())).encode())

    def _note(self, _: int, body: bytes) -> None:
        told = frames.read_observations(body)
        self._under_way.note(told)
        for reason, refused in told.rejected.items():
            self._engine.counters.reject(reason, refused.tokens, refused.requests)
        self._observe(told)

    def _listens(self, _: int, body: bytes) -> None:
        if self.listening.done():
            return
        if body:
            self.listening.set_exception(OSError(body.decode()))
        else:
            self.listening.set_result(None)

    def _close(self) -> None:
        for call in (*self._reserved, *self._requests):
            self._cancel(call, b"")
        # Its callers' connections ended: that is what they saw.
        self._observe(self._under_way.ended("UNAVAILABLE"))
        if not self.gone.done():
            self.gone.set_result(None)
