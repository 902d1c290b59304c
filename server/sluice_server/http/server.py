"""The HTTP server."""

import asyncio

from aiohttp import web

from sluice_server.http import openai, probes
from sluice_server.http.authentication import token_middleware
from sluice_server.metrics import Metrics
from sluice_server.serving import EmbeddingService


class HttpServer:
    """Listens from the start: the phase before serving can be seen, too.

    Args:
        service: Answers /v1/embeddings.
        metrics: Answers /metrics.
        max_body_bytes: The largest body taken.
        token: Asked for, but by the probes; None asks for none.
    """

    def __init__(
        self, service: EmbeddingService, metrics: Metrics, *, max_body_bytes: int, token: str | None = None
    ) -> None:
        middlewares = [token_middleware(token)] if token else []
        app = web.Application(client_max_size=max_body_bytes, middlewares=middlewares)
        app.add_routes([*probes.routes(service.engine, metrics), *openai.routes(service)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port.

        Raises:
            OSError: The address cannot be listened on.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Closes after the requests under way."""
        async with asyncio.timeout(10):
            await self._runner.cleanup()
