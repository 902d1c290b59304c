"""Lists everything now and then: to begin with, to mend what a watch missed, and to notice that.

The lists are compared with the store a few seconds later. What the watches brought in the meantime is no
news; what is still news then was missed. A watch that misses changes again and again is dead, and so should
its process be. A watch that had to begin anew is another matter: it lists what there is, but nobody tells it
what is gone; so whoever hears of that asks for a list soon, and what that brings is no fault.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from sluice_operator import metrics
from sluice_operator.kube import KubeError
from sluice_operator.pod_template import MANAGED_BY, MANAGED_BY_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sluice_operator.kube import Kube
    from sluice_operator.store import Store

log = logging.getLogger(__name__)

OWNED = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
"""The label selector of every object that the operator makes."""
SELECTORS: dict[str, str | None] = {
    "EmbeddingService": None,
    "Deployment": OWNED,
    "Service": OWNED,
    "PodDisruptionBudget": OWNED,
    "NetworkPolicy": OWNED,
    "Pod": OWNED,
}

_GRACE_SECONDS = 5.0
_SOON_SECONDS = 1.0
"""Watches that begin anew do so together."""
_MOST_MISSES = 3
_LEAST_PAUSE_SECONDS = 0.5
_MOST_PAUSE_SECONDS = 5.0


class Resync:
    """Keeps the store honest."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        namespaces: Sequence[str],
        *,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._store = store
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._interval = interval_seconds
        self._clock = clock
        self._misses = 0
        self._asked = asyncio.Event()
        self._proved_at: dict[str, float] = {}
        for kind in SELECTORS:
            metrics.WATCH_AGE.labels(kind=kind).set_function(partial(self._age, kind))

    @property
    def watches_are_alive(self) -> bool:
        """False once several lists in a row brought news that the watches should have brought."""
        return self._misses < _MOST_MISSES

    def ages(self) -> dict[str, float]:
        """Seconds since the watch of each kind last proved to be alive: it told something, or had missed nothing."""
        return {kind: round(self._age(kind), 1) for kind in self._proved_at}

    def heard(self, kind: str) -> None:
        """A watch told something."""
        self._proved_at[kind] = self._clock()

    def ask(self) -> None:
        """Asks for a list soon, as a watch had to begin anew."""
        self._asked.set()

    async def fill(self) -> None:
        """The whole picture, before anything is decided; waits for an API server and a CRD."""
        delay = _LEAST_PAUSE_SECONDS
        while True:
            try:
                await self._take_all()
            except KubeError as error:
                pause = max(delay, error.retry_after_seconds)
                log.warning("cannot list what there is, again in %.1f s: %s", pause, error)
                await asyncio.sleep(pause)
                delay = min(2 * delay, _MOST_PAUSE_SECONDS)
            else:
                return

    async def run(self) -> None:
        """Compares for ever."""
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._asked.wait()
            except TimeoutError:
                await self._compare()
            else:
                await asyncio.sleep(_SOON_SECONDS)
                self._asked.clear()
                await self.fill()

    async def _compare(self) -> None:
        try:
            missed = await self._take_all(grace_seconds=_GRACE_SECONDS)
        except KubeError as error:
            log.warning("cannot compare the watches with a list: %s", error)
            return
        self._misses = self._misses + 1 if missed else 0

    async def _take_all(self, *, grace_seconds: float = 0.0) -> int:
        """How many changes were news; where there was no grace, it does not matter whose fault that is."""
        lists = [
            (kind, namespace, *await self._kube.list(kind, namespace, selector))
            for kind, selector in SELECTORS.items()
            for namespace in self._namespaces
        ]
        await asyncio.sleep(grace_seconds)
        total = 0
        for kind, namespace, bodies, revision in lists:
            news = self._store.take_list(kind, namespace, bodies, revision)
            if news and grace_seconds:
                metrics.RESYNC_REPAIRS.labels(kind=kind).inc(news)
                log.warning("the watch of %s had missed %d changes", kind, news)
            elif not news or kind not in self._proved_at:
                self.heard(kind)
            total += news
        return total

    def _age(self, kind: str) -> float:
        return self._clock() - self._proved_at.get(kind, float("-inf"))
