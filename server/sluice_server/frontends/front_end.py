"""A front end: the gRPC server of one process, and its life as the main process tells it."""

import asyncio
import gc
import json
import logging
import os
import socket
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from sluice_server import garbage, logs
from sluice_server.counters import Counters
from sluice_server.frontends import frames
from sluice_server.frontends.frames import Frame, Kind
from sluice_server.frontends.link import Link
from sluice_server.frontends.recording import Telling
from sluice_server.frontends.remote_engine import RemoteEngine
from sluice_server.frontends.setup import FrontEndConfig, read_config, read_state
from sluice_server.observability import tracing
from sluice_server.observability.observer import RequestObserver
from sluice_server.rpc.server import GrpcServer
from sluice_server.serving import EmbeddingService
from sluice_server.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
_TOLD_WITHIN_SECONDS = 30.0
_SPANS_WITHIN_SECONDS = 3.0


class FrontEnd:
    """Serves gRPC with the engine of the main process.

    Args:
        config: What the main process says.
        engine: Connected.
        link: To the main process.
        counters: Of what this process refuses itself; its log tells of them.
    """

    def __init__(self, config: FrontEndConfig, engine: RemoteEngine, link: Link, counters: Counters) -> None:
        self._config, self._engine, self._link = config, engine, link
        self._service = EmbeddingService(engine, config.limits, config.tokenizer_threads)
        self._recorder = Telling(lambda told: link.send(Kind.OBSERVATIONS, 0, *frames.observations(told)), counters)
        # What the engine refuses, the main process tells in the log.
        self._observer = RequestObserver(counters, [self._recorder], tracing.configure(os.environ))
        self._service.observe(self._observer)
        self._server = GrpcServer(
            self._service,
            max_message_bytes=config.max_message_bytes,
            max_connection_age_seconds=config.max_connection_age_seconds,
            tls=config.tls,
            token=config.token,
            observer=self._observer,
            shares_port=True,
        )
        self._follow: dict[int, Callable[[bytes], Awaitable[None]]] = {
            Kind.TOKENIZER: self._load_tokenizer,
            Kind.STATE: self._enter,
        }

    async def start(self) -> None:
        """Listens, and says so, or why not."""
        try:
            await self._server.start(self._config.address)
        except OSError as error:
            self._link.send(Kind.LISTENING, 0, str(error).encode())
            raise
        self._link.send(Kind.LISTENING)
        self._beat()

    async def follow(self, order: Frame) -> None:
        """Does what the main process says; one after the other."""
        await self._follow[order.kind](order.body)

    async def stop(self) -> None:
        """Ends the calls that are left within a second; the main process has finished what it admitted."""
        await self._server.set_serving(serving=False)
        await self._server.stop(grace_seconds=1)
        self._service.close()
        self._observer.stop()
        await asyncio.to_thread(self._observer.close, _SPANS_WITHIN_SECONDS)
        self._recorder.flush()

    async def _load_tokenizer(self, body: bytes) -> None:
        told = json.loads(body)
        self._service.set_tokenizer(await asyncio.to_thread(_tokenizer, **told))
        gc.collect()
        gc.freeze()

    async def _enter(self, body: bytes) -> None:
        state = read_state(body)
        self._engine.info, self._engine.fingerprint = state.info, state.fingerprint
        await self._server.set_serving(serving=state.is_serving)

    def _beat(self) -> None:
        self._link.send(Kind.BEAT)
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)


def _tokenizer(text: str, max_tokens: int, *, lowercase: bool) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(text), max_tokens=max_tokens, lowercase=lowercase)


async def serve(end: socket.socket) -> None:
    """Serves until the main process says that it is enough; the process ends at once where that is gone.

    Args:
        end: This process's of the pair.

    Raises:
        OSError: The address cannot be listened on.
    """
    orders: asyncio.Queue[Frame] = asyncio.Queue()
    counters, over = Counters(), asyncio.Event()
    engine = RemoteEngine(counters)
    # Answers go where they are waited for; the main process sends a handful of orders in all.
    link = Link(lambda frame: (engine.take if frame.call else orders.put_nowait)(frame), lambda: _end_unless(over))
    engine.connect(link)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=end)
    async with asyncio.timeout(_TOLD_WITHIN_SECONDS):
        config = read_config((await orders.get()).body)
    logs.configure(config.log_level, config.log_format)
    with garbage.looked_for_rarely():
        front_end = FrontEnd(config, engine, link, counters)
        try:
            await front_end.start()
            while (order := await orders.get()).kind != Kind.STOP:
                await front_end.follow(order)
            await front_end.stop()
        finally:
            over.set()
            link.close()


def _end_unless(over: asyncio.Event) -> None:
    """Callers of a server that is gone hear of it soonest where their connection ends."""
    if not over.is_set():
        logger.error("the main process is gone; this front end ends")
        os._exit(1)
