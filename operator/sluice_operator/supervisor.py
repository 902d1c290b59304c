"""One running reconciler per EmbeddingService while this instance acts; none while it does not.

kopf could run these as daemons, but a daemon puts a finalizer on its object, and a finalizer outlives its
operator: `helm uninstall` would leave every EmbeddingService stuck. So kopf only watches, and the tasks are
kept here. Deletion needs no operator at all: every child has an owner reference.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sluice_operator import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from sluice_operator.reconciler import Reconciler
    from sluice_operator.store import ServiceKey, Store

log = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS = 1.0


class Supervisor:
    """Starts, wakes and buries reconcilers; one that dies is seen, counted and started anew."""

    def __init__(self, make: Callable[[ServiceKey], Reconciler], store: Store) -> None:
        self._make = make
        self._store = store
        self._running: dict[ServiceKey, tuple[Reconciler, asyncio.Task[None]]] = {}
        self._acts = False

    @property
    def acts(self) -> bool:
        """Whether reconcilers run."""
        return self._acts

    def start(self) -> None:
        """Begins to act on every service that is known, and on what is left of those that are gone."""
        self._acts = True
        metrics.ACTS.set(1)
        for key in self._store.known():
            self._spawn(key)

    async def stop(self) -> None:
        """Ends every reconciler at once; what they were writing is not waited for."""
        self._acts = False
        metrics.ACTS.set(0)
        tasks = [task for _, task in self._running.values()]
        for key in self._running:
            # Whoever acts next tells how the services are; two that tell would contradict each other.
            metrics.forget_service(*key)
        self._running.clear()
        while tasks:
            for task in tasks:
                task.cancel()
            # One that lost the cancellation would keep this instance from ever leading again.
            done, left = await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_SECONDS)
            tasks = list(left)
            for task in done:
                if not task.cancelled() and task.exception() is not None:
                    log.warning("%s ended in its last moment: %s", task.get_name(), task.exception())

    def wake(self, key: ServiceKey) -> None:
        """Something about a service changed; the first change starts its reconciler."""
        if not self._acts:
            return
        running = self._running.get(key)
        if running is not None:
            running[0].wake()
        elif self._store.service(key) is not None:
            self._spawn(key)

    def _spawn(self, key: ServiceKey) -> None:
        reconciler = self._make(key)
        task = asyncio.create_task(reconciler.run(), name=f"reconcile {key[0]}/{key[1]}")
        self._running[key] = (reconciler, task)
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: ServiceKey, task: asyncio.Task[None]) -> None:
        running = self._running.get(key)
        if running is None or running[1] is not task:
            return
        del self._running[key]
        if not task.cancelled() and task.exception() is not None:
            metrics.TASK_DEATHS.inc()
            log.error("the reconciler of %s/%s died", *key, exc_info=task.exception())
        if self._store.service(key) is None:
            metrics.forget_service(*key)
        else:
            self.wake(key)
