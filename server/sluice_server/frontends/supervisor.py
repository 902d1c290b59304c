"""Keeps the front ends running: starts them, tells them what changes, starts anew what dies, ends them."""

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from sluice_server.engine import Engine
from sluice_server.frontends.deaths import Deaths
from sluice_server.frontends.desk import Desk
from sluice_server.frontends.frames import Kind
from sluice_server.frontends.port import keep_port
from sluice_server.frontends.setup import FrontEndConfig, State
from sluice_server.observability.observations import Observations

logger = logging.getLogger(__name__)

_LISTENS_WITHIN_SECONDS = 60.0
# It beats every 5 s, unless its event loop stands still.
_SILENT_AFTER_SECONDS = 30.0
_LOOK_SECONDS = 5.0
# Beyond the grace of its calls: its last spans.
_ENDS_WITHIN_SECONDS = 6.0
_DIES_WITHIN_SECONDS = 5.0


class FrontEnds:
    """As the gRPC server of one process: listens, says whether it serves, stops.

    Args:
        engine: Admits and computes for all of them.
        config: Of each; its address is set when they listen.
        count: So many.
        observe: Told what became of their requests.

    Attributes:
        died: How many have, since the start.
    """

    def __init__(
        self, engine: Engine, config: FrontEndConfig, count: int, observe: Callable[[Observations], None]
    ) -> None:
        self._engine, self._config, self._count, self._observe = engine, config, count, observe
        self._state = State()
        self._tokenizer: bytes | None = None
        self._desks: set[Desk] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._kept_port: socket.socket | None = None
        self._deaths = Deaths()
        self.died = 0
        self._stopping = asyncio.Event()

    @property
    def listening(self) -> int:
        """How many serve now."""
        return sum(desk.listens for desk in self._desks)

    async def start(self, address: str) -> int:
        """Listens with every front end; returns the port.

        Raises:
            OSError: The address cannot be listened on, or a front end cannot be started.
        """
        self._kept_port = keep_port(address)
        port: int = self._kept_port.getsockname()[1]
        self._config = replace(self._config, address=f"{address.rpartition(':')[0]}:{port}")
        first = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        self._keepers = [asyncio.create_task(self._keep(place, listening)) for place, listening in enumerate(first)]
        try:
            async with asyncio.timeout(_LISTENS_WITHIN_SECONDS):
                await asyncio.gather(*first)
        except TimeoutError:
            raise OSError(f"no front end listened on {address} in {_LISTENS_WITHIN_SECONDS:.0f} s") from None
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """What gRPC health says, and what is known of the model by then."""
        state = State(serving, self._engine.info, self._engine.fingerprint)
        if state != self._state:
            self._state = state
            for desk in self._desks:
                desk.link.send(Kind.STATE, 0, state.encoded())

    def set_tokenizer(self, described: Mapping[str, object]) -> None:
        """As the tokenizer describes itself; before the model serves."""
        self._tokenizer = json.dumps(described).encode()
        for desk in self._desks:
            desk.link.send(Kind.TOKENIZER, 0, self._tokenizer)

    async def stop(self, grace_seconds: float) -> None:
        """Ends them when their calls are answered; kills what does not end."""
        self._stopping.set()
        for desk in self._desks:
            desk.link.send(Kind.STOP)
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=grace_seconds + _ENDS_WITHIN_SECONDS)
            for keeper in late:
                keeper.cancel()
            await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._kept_port is not None:
            self._kept_port.close()

    # --- one place --------------------------------------------------------------------------------

    async def _keep(self, place: int, first: "asyncio.Future[None]") -> None:
        """A front end in this place, and another one when it dies."""
        while not self._stopping.is_set():
            try:
                code = await self._live(place, first)
            except OSError as error:
                code = str(error)
            except Exception as error:
                logger.exception("a front end could not be kept")
                code = str(error)
            if self._stopping.is_set():
                return
            if not first.done():
                # The server's start waits for it; later ones count as dead.
                first.set_exception(OSError(f"a front end ended before it listened: {code}"))
                return
            self.died += 1
            logger.error("a front end died: %s; its callers have lost their connections", code, extra={"place": place})
            if self._deaths.are_too_many(asyncio.get_running_loop().time()):
                self._engine.failed(f"front ends die again and again; the last one: {code}")
                return

    async def _live(self, place: int, first: "asyncio.Future[None]") -> str:
        """One front end from its start to its end; says how it ended.

        Raises:
            OSError: It cannot be started, or cannot listen.
        """
        desk = Desk(self._engine, self._observe)
        process = await self._spawn(desk)
        try:
            async with asyncio.timeout(_LISTENS_WITHIN_SECONDS):
                await asyncio.wait((desk.listening, desk.gone), return_when=asyncio.FIRST_COMPLETED)
            if desk.listening.done():
                desk.listening.result()
                logger.info("a front end listens", extra={"place": place, "pid": process.pid})
                if not first.done():
                    first.set_result(None)
            return await self._until_gone(desk, process)
        except TimeoutError:
            return "it did not listen in time"
        finally:
            self._desks.discard(desk)
            desk.link.abort()
            process.kill()
            await asyncio.to_thread(process.wait)

    async def _spawn(self, desk: Desk) -> "subprocess.Popen[bytes]":
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.to_thread(_start, theirs.fileno())
            except OSError:
                ours.close()
                raise
        await asyncio.get_running_loop().create_unix_connection(lambda: desk.link, sock=ours)
        self._desks.add(desk)
        desk.link.send(Kind.SETUP, 0, self._config.encoded())
        if self._tokenizer is not None:
            desk.link.send(Kind.TOKENIZER, 0, self._tokenizer)
        desk.link.send(Kind.STATE, 0, self._state.encoded())
        if self._stopping.is_set():
            desk.link.send(Kind.STOP)
        return process

    async def _until_gone(self, desk: Desk, process: "subprocess.Popen[bytes]") -> str:
        loop = asyncio.get_running_loop()
        while not desk.gone.done():
            await asyncio.wait((desk.gone,), timeout=_LOOK_SECONDS)
            if not desk.gone.done() and loop.time() - desk.heard_at > _SILENT_AFTER_SECONDS:
                return f"it said nothing for {_SILENT_AFTER_SECONDS:.0f} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"exit code {await asyncio.to_thread(process.wait, _DIES_WITHIN_SECONDS)}"
        return "it closed its socket and did not end"


def _start(descriptor: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "sluice_server.frontends", str(descriptor)],
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
    )
