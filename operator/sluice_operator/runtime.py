"""The running operator: everything wired together, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from sluice_operator.act import Actor
from sluice_operator.health_client import HealthClient
from sluice_operator.kube import Kube, load_configuration
from sluice_operator.reconciler import Reconciler
from sluice_operator.resync import Resync
from sluice_operator.store import Store
from sluice_operator.supervisor import Supervisor
from sluice_operator.web import WebServer, measure_loop_lag

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sluice_operator.settings import Settings
    from sluice_operator.store import ServiceKey

log = logging.getLogger(__name__)


class Operator:
    """One instance of the operator."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(self._changed)
        self._supervisor = Supervisor(self._reconciler, self._store)
        self._exit = contextlib.AsyncExitStack()
        self._background: list[asyncio.Task[None]] = []
        self.http_port: int | None = None

    async def start(self) -> None:
        """Lists what there is, then acts on it; returns once it does, waiting for the API server first."""
        settings = self._settings
        self._kube = await self._exit.enter_async_context(
            Kube(await load_configuration(), timeout_seconds=settings.kube_timeout_seconds)
        )
        self._health = await self._exit.enter_async_context(
            HealthClient(timeout_seconds=settings.poll_timeout_seconds, concurrency=settings.poll_concurrency)
        )
        self._actor = Actor(self._kube, self._store, instance=settings.identity)
        resync = Resync(self._kube, self._store, settings.watch_namespaces, interval_seconds=settings.resync_seconds)
        await self._start_web(resync)
        await resync.fill()
        self._run_in_background("resync", resync.run())
        self._run_in_background("loop lag", measure_loop_lag())
        self._supervisor.start()
        log.info("acting on %d services", len(self._store.services()))

    async def stop(self) -> None:
        """Ends everything; the pods keep serving."""
        await self._supervisor.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._exit.aclose()

    def saw(self, event_type: str | None, body: dict[str, Any]) -> None:
        """A watch told of an object."""
        if event_type == "DELETED":
            self._store.remove(body)
        else:
            self._store.put(body)

    def _changed(self, key: ServiceKey) -> None:
        self._supervisor.wake(key)

    def _reconciler(self, key: ServiceKey) -> Reconciler:
        return Reconciler(
            key,
            settings=self._settings,
            store=self._store,
            kube=self._kube,
            health=self._health,
            actor=self._actor,
        )

    async def _start_web(self, resync: Resync) -> None:
        web = WebServer(
            checks={
                "watchesAreAlive": lambda: resync.watches_are_alive,
                "tasksAreAlive": lambda: not any(task.done() for task in self._background),
            },
            facts={"acts": lambda: self._supervisor.acts},
        )
        self.http_port = await web.start(self._settings.http_host, self._settings.http_port)
        self._exit.push_async_callback(web.close)

    def _run_in_background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_death)
        self._background.append(task)


def _log_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        log.error("the background task %s ended", task.get_name(), exc_info=task.exception())
