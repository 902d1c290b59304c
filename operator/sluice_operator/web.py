"""/healthz for the kubelet and /metrics for Prometheus."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sluice_operator import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LAG_INTERVAL_SECONDS = 1.0


class WebServer:
    """Serves until closed. `checks` are named questions; one answered with False makes /healthz 503."""

    def __init__(self, checks: Mapping[str, Callable[[], bool]], facts: Mapping[str, Callable[[], object]]) -> None:
        self._checks = checks
        self._facts = facts
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", self._metrics)])
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
        answers = {name: check() for name, check in self._checks.items()}
        facts = {name: fact() for name, fact in self._facts.items()}
        return web.json_response({**answers, **facts}, status=200 if all(answers.values()) else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def measure_loop_lag() -> None:
    """Keeps the gauge of how late the event loop runs, for ever."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(_LAG_INTERVAL_SECONDS)
        metrics.LOOP_LAG.set(max(0.0, time.monotonic() - before - _LAG_INTERVAL_SECONDS))
