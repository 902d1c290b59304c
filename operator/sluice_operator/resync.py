"""Lists everything now and then: to begin with, to mend what a watch missed, and to notice that.

The lists are compared with the store a few seconds later. What the watches brought in the meantime is no
news; what is still news then was missed. A watch that misses changes again and again is dead, and so should
its process be.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sluice_operator import metrics
from sluice_operator.kube import KubeError
from sluice_operator.pod_template import MANAGED_BY, MANAGED_BY_LABEL

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    "Pod": OWNED,
}

_GRACE_SECONDS = 5.0
_MOST_MISSES = 3


class Resync:
    """Keeps the store honest."""

    def __init__(self, kube: Kube, store: Store, namespaces: Sequence[str], *, interval_seconds: float) -> None:
        self._kube = kube
        self._store = store
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._interval = interval_seconds
        self._misses = 0

    @property
    def watches_are_alive(self) -> bool:
        """False once several lists in a row brought news that the watches should have brought."""
        return self._misses < _MOST_MISSES

    async def fill(self) -> None:
        """The whole picture, before anything is decided; waits for an API server and a CRD."""
        delay = 0.5
        while True:
            try:
                await self._take_all(grace_seconds=0)
            except KubeError as error:
                log.warning("cannot list what there is, again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, 10)
            else:
                return

    async def run(self) -> None:
        """Compares for ever."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                news = await self._take_all(grace_seconds=_GRACE_SECONDS)
            except KubeError as error:
                log.warning("cannot compare the watches with a list: %s", error)
            else:
                self._misses = self._misses + 1 if news else 0

    async def _take_all(self, *, grace_seconds: float) -> int:
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
            total += news
        return total
