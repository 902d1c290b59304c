"""The HTTP server."""

import asyncio
import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sluice_server.engine import Engine
from sluice_server.http import openai, probes
from sluice_server.http.authentication import token_middleware
from sluice_server.http.observation import following
from sluice_server.http.refusals import errors_as_objects
from sluice_server.metrics import Metrics
from sluice_server.observability.observer import RequestObserver
from sluice_server.serving import EmbeddingService

# What a caller can do wrong below HTTP: it has its answer, or has gone, and is no error of ours to log.
_CALLERS_FAULTS = (HttpProcessingError, web.RequestPayloadError, ConnectionError)


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], _CALLERS_FAULTS))


_protocol_logger = logging.getLogger(f"{__name__}.protocol")
_protocol_logger.addFilter(_is_ours)


class HttpServer:
    """Listens from the start: the phase before serving can be seen, too.

    Args:
        engine: Answers the probes.
        service: Answers /v1/embeddings.
        metrics: Answers /metrics.
        max_body_bytes: The largest body taken.
        token: Asked for, but by the probes; None asks for none.
        observer: Told of every request for embeddings.
    """

    def __init__(
        self,
        engine: Engine,
        service: EmbeddingService,
        metrics: Metrics,
        *,
        max_body_bytes: int,
        token: str | None = None,
        observer: RequestObserver | None = None,
    ) -> None:
        middlewares = [
            *([following(observer)] if observer else []),
            errors_as_objects,
            *([token_middleware(token)] if token else []),
        ]
        app = web.Application(client_max_size=max_body_bytes, middlewares=middlewares)
        app.add_routes([*probes.routes(engine, metrics, service.limits), *openai.routes(service)])
        self._runner = web.AppRunner(app, access_log=None, logger=_protocol_logger, shutdown_timeout=5)

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
