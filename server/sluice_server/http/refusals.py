"""A domain error as OpenAI's error object."""

from aiohttp import web

from sluice_server.errors import InvalidRequestError, SluiceError, UnauthenticatedError
from sluice_server.rpc import status


def refusal(error: SluiceError) -> web.Response:
    """The error with its status; Retry-After in whole seconds, as HTTP has it."""
    wait_ms = status.retry_after_ms(error)
    headers = {} if wait_ms is None else {"Retry-After": str(max(1, round(wait_ms / 1000)))}
    callers_fault = isinstance(error, InvalidRequestError | UnauthenticatedError)
    body = {
        "message": str(error),
        "type": "invalid_request_error" if callers_fault else "server_error",
        "code": type(error).__name__,
    }
    return web.json_response({"error": body}, status=status.http_code(error), headers=headers)
