"""The running operator: everything wired together, started and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from sluice_operator.act import Actor
from sluice_operator.health_client import HealthClient
from sluice_operator.kube import Kube, load_configuration
from sluice_operator.leader import Elector, Fence, Terms
from sluice_operator.reconciler import Reconciler
from sluice_operator.resync import Resync
from sluice_operator.store import Store
from sluice_operator.supervisor import Supervisor
from sluice_operator.watches import Watches
from sluice_operator.web import LoopLag, WebServer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sluice_operator.settings import Settings
    from sluice_operator.store import ServiceKey

log = logging.getLogger(__name__)


class Operator:
    """One instance of the operator: it knows all there is, and acts on it while it leads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(self._changed)
        self._supervisor = Supervisor(self._reconciler, self._store)
        self._fence = Fence()
        self._loop_lag = LoopLag()
        self._exit = contextlib.AsyncExitStack()
        self._background: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._elector: Elector | None = None
        self._knows = False
        self.http_port: int | None = None

    async def start(self) -> None:
        """Lists and watches what there is; returns once it does, waiting for the API server first."""
        settings = self._settings
        self._kube = await self._exit.enter_async_context(
            Kube(
                await load_configuration(),
                timeout_seconds=settings.kube_timeout_seconds,
                seconds_to_write=lambda: self._fence.seconds_left,
            )
        )
        self._health = await self._exit.enter_async_context(
            HealthClient(timeout_seconds=settings.poll_timeout_seconds, concurrency=settings.poll_concurrency)
        )
        self._actor = Actor(
            self._kube,
            self._store,
            instance=settings.identity,
            gate_writes_per_second=settings.gate_writes_per_second,
        )
        self._resync = Resync(
            self._kube, self._store, settings.watch_namespaces, interval_seconds=settings.resync_seconds
        )
        self._watches = Watches(self.saw, settings.watch_namespaces, identity=settings.identity)
        await self._start_web()
        await self._resync.fill()
        self._knows = True
        self._watches.start()
        self._exit.push_async_callback(self._watches.stop)
        self._run_in_background("resync", self._resync.run())
        self._run_in_background("loop lag", self._loop_lag.measure())
        self._run_in_background("lead", self._campaign())

    async def failed(self) -> str:
        """Returns what ended that should not have; the process is of no use any more then."""
        return await self._failed

    async def stop(self) -> None:
        """Ends everything, the acting and the Lease first; the pods keep serving."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._exit.aclose()

    def saw(self, event_type: str | None, body: dict[str, Any]) -> None:
        """A watch told of an object."""
        self._resync.heard(body["kind"])
        if event_type == "DELETED":
            self._store.remove(body)
            return
        self._store.put(body)
        if event_type is None:
            # Part of a list: the watch began anew, and a list does not tell what is gone.
            self._resync.ask()

    async def _campaign(self) -> None:
        settings = self._settings
        if not settings.leader_election:
            self._fence.open_until(float("inf"))
            await self._act()
            return
        self._elector = Elector(
            self._kube,
            self._fence,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            # A container that is started anew has its host's name again, yet is another instance.
            identity=f"{settings.identity}_{os.urandom(4).hex()}",
            terms=Terms(
                settings.lease_duration_seconds,
                settings.lease_renew_deadline_seconds,
                settings.lease_renew_interval_seconds,
            ),
            lead=self._act,
        )
        await self._elector.run()

    async def _act(self) -> None:
        """Acts until cancelled; on what there is now, not on what a watch may not have told yet."""
        await self._resync.fill()
        self._supervisor.start()
        log.info("acting on %d services", len(self._store.services()))
        try:
            await asyncio.Event().wait()
        finally:
            await self._supervisor.stop()

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

    async def _start_web(self) -> None:
        web = WebServer(
            alive={
                "watchesAreAlive": lambda: (
                    self._resync.watches_are_alive and (not self._knows or self._watches.is_alive)
                ),
                "tasksAreAlive": lambda: not any(task.done() for task in self._background),
                "loopKeepsUp": lambda: self._loop_lag.keeps_up,
            },
            ready={"knowsWhatThereIs": lambda: self._knows},
            facts={
                "acts": lambda: self._supervisor.acts,
                "role": lambda: "leader" if self._fence.seconds_left > 0 else "standby",
                "leader": lambda: None if self._elector is None else self._elector.holder,
                "watchAgeSeconds": self._resync.ages,
                "loopLagSeconds": lambda: self._loop_lag.worst_seconds,
            },
        )
        self.http_port = await web.start(self._settings.http_host, self._settings.http_port)
        self._exit.push_async_callback(web.close)

    def _run_in_background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._background.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        log.error("the background task %s ended", task.get_name(), exc_info=task.exception())
        if not self._failed.done():
            self._failed.set_result(task.get_name())
