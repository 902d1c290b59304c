"""Follows each request for embeddings over HTTP: outermost, so that refusals of every kind are seen."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sluice_server.observability import request_ids
from sluice_server.observability.observer import RequestObserver
from sluice_server.observability.scope import OPENAI

_PATH = OPENAI.span_attributes["http.route"]
# As proxies have it for a caller that left before its answer; no status is ever sent.
_CALLER_LEFT = "499"


def following(observer: RequestObserver) -> Middleware:
    """Gives each request its id, returns it, and tells the observer how it went. Probes pass unseen."""

    @web.middleware
    async def follow(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != _PATH:
            return await handler(request)
        scope = observer.begin(OPENAI, request.headers)
        code = _CALLER_LEFT
        try:
            response = await handler(request)
            code = str(response.status)
            response.headers[request_ids.HEADER] = scope.request_id
            return response
        finally:
            observer.end(scope, code)

    return follow
