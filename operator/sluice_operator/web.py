"""/healthz and /readyz for the kubelet, /metrics for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sluice_operator import metrics

_LAG_INTERVAL_SECONDS = 1.0
_LAGS_KEPT = 60
_MOST_LAG_SECONDS = 5.0

Checks = Mapping[str, Callable[[], bool]]


class WebServer:
    """Serves until closed.

    Args:
        alive: Named questions; one answered with False makes /healthz 503, so that the process is replaced.
        ready: Further ones for /readyz: a process that is not ready only needs time.
        facts: What both tell besides.
    """

    def __init__(self, *, alive: Checks, ready: Checks, facts: Mapping[str, Callable[[], object]]) -> None:
        self._alive = alive
        self._ready = ready
        self._facts = facts
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0, access_log=None)

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port, which the system chose where 0 was asked for."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return self._answer(self._alive)

    async def _readyz(self, _: web.Request) -> web.Response:
        return self._answer({**self._alive, **self._ready})

    def _answer(self, checks: Checks) -> web.Response:
        answers = {name: check() for name, check in checks.items()}
        facts = {name: fact() for name, fact in self._facts.items()}
        return web.json_response({**answers, **facts}, status=200 if all(answers.values()) else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


class LoopLag:
    """How late the event loop ran over the last minute."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=_LAGS_KEPT)

    @property
    def worst_seconds(self) -> float:
        """The longest that anything had to wait for its turn."""
        return round(max(self._lags, default=0.0), 3)

    @property
    def keeps_up(self) -> bool:
        """False where most of the minute went by with everything late: nothing is decided in time any more."""
        late = sum(lag > _MOST_LAG_SECONDS for lag in self._lags)
        return late <= _LAGS_KEPT / 10

    async def measure(self) -> None:
        """Looks for ever, and keeps the gauge."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_INTERVAL_SECONDS)
            lag = max(0.0, time.monotonic() - before - _LAG_INTERVAL_SECONDS)
            self._lags.append(lag)
            metrics.LOOP_LAG.set(lag)
