"""The bearer token of gRPC calls."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from sluice_server.errors import UnauthenticatedError
from sluice_server.security import OPEN_GRPC_SERVICES, check_token

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Ends a call without the token before any of its messages is read.

    Args:
        token: The expected one.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Lets the call through, or answers UNAUTHENTICATED in its stead."""
        service = str(handler_call_details.method).split("/")[1]
        if service in OPEN_GRPC_SERVICES:
            return await continuation(handler_call_details)
        metadata = {str(key): value for key, value in handler_call_details.invocation_metadata or ()}
        authorization = metadata.get("authorization")
        try:
            check_token(self._token, str(authorization) if authorization is not None else None)
        except UnauthenticatedError as error:
            handler = await continuation(handler_call_details)
            return _refusing(handler, str(error))
        return await continuation(handler_call_details)


def _refusing(handler: Any, message: str) -> Handler:
    """A handler of the same shape that aborts."""

    async def abort(_request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, message)

    async def abort_stream(_request: object, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[object]:
        await abort(_request, context)
        yield None  # never reached: its presence makes this a stream

    if handler.response_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(abort_stream, handler.request_deserializer, handler.response_serializer)
    make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(abort, handler.request_deserializer, handler.response_serializer)
