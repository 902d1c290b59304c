"""The bearer token of HTTP requests."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sluice_server.errors import UnauthenticatedError
from sluice_server.http.refusals import refusal
from sluice_server.security import OPEN_HTTP_PATHS, check_token


def token_middleware(token: str) -> Middleware:
    """Answers 401 without the token, but for the probes."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_HTTP_PATHS:
            try:
                check_token(token, request.headers.get("Authorization"))
            except UnauthenticatedError as error:
                return refusal(error)
        return await handler(request)

    return check
