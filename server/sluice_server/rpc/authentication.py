"""The bearer token of gRPC calls."""

from collections.abc import AsyncIterator
from typing import Any

from sluice_server.rpc.calls import Context
from sluice_server.rpc.handlers import Handler, behavior, with_behavior
from sluice_server.security import check_token


def authorized(handler: Handler, token: str) -> Handler:
    """The same method for those only who send the token; it raises UnauthenticatedError for the others."""
    inner = behavior(handler)

    def call(request: Any, context: Context) -> Any:
        _check(context, token)
        return inner(request, context)

    async def call_stream(requests: Any, context: Context) -> AsyncIterator[Any]:
        _check(context, token)
        async for response in inner(requests, context):
            yield response

    return with_behavior(handler, call_stream if handler.response_streaming else call)


def _check(context: Context, token: str) -> None:
    metadata = {str(key): value for key, value in context.invocation_metadata()}
    authorization = metadata.get("authorization")
    check_token(token, str(authorization) if authorization is not None else None)
