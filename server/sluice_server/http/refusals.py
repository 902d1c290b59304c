"""Every refusal as OpenAI's error object."""

import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from sluice_server.errors import InvalidRequestError, SluiceError, UnauthenticatedError
from sluice_server.rpc import status

logger = logging.getLogger(__name__)


def refusal(error: SluiceError) -> web.Response:
    """The error with its status; Retry-After in whole seconds, as HTTP has it."""
    wait_ms = status.retry_after_ms(error)
    headers = {} if wait_ms is None else {"Retry-After": str(max(1, round(wait_ms / 1000)))}
    callers_fault = isinstance(error, InvalidRequestError | UnauthenticatedError)
    return _error(status.http_code(error), status.message(error), headers, callers_fault=callers_fault)


@web.middleware
async def errors_as_objects(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the HTTP library refuses (404, 405, 413 …), and what fails in our own code, has the same form."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - a redirect is no error
            raise
        headers = {name: value for name, value in error.headers.items() if name in {"Allow", "Connection"}}
        return _error(error.status, _sentence(request, error), headers, callers_fault=error.status < 500)  # noqa: PLR2004
    except ConnectionError:
        raise
    except Exception:
        logger.exception("a request failed in the server's own code")
        return _error(500, "the server failed on this request; its log has the cause", {}, callers_fault=False)


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.method} is not allowed at {request.path}; expected {error.headers['Allow']}"
    if isinstance(error, web.HTTPNotFound):
        return f"there is nothing at {request.path}; expected POST /v1/embeddings"
    return error.text or error.reason


def _error(code: int, message: str, headers: dict[str, str], *, callers_fault: bool) -> web.Response:
    body = {
        "message": message,
        "type": "invalid_request_error" if callers_fault else "server_error",
        "code": HTTPStatus(code).name.lower(),
    }
    response = web.json_response({"error": body}, status=code, headers=headers)
    if headers.get("Connection") == "close":
        response.force_close()
    return response
