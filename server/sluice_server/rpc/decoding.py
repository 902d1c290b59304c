"""Bytes that are no message of the call's type: the caller's fault, said as such."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from sluice_server.errors import InvalidRequestError
from sluice_server.rpc.calls import Context, ending_with_its_status

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands where a message would stand."""

    reason: str


class DecodingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Ends a call of unreadable bytes with INVALID_ARGUMENT; by itself, gRPC answers UNKNOWN and an exception's text.

    A stream hears it where it reads them, so that what it read before can be answered.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The same handler behind the check."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_streaming != handler.response_streaming:
            return handler  # type: ignore[no-any-return] # no such method, or health's Watch
        decode = _decoding(handler.request_deserializer)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                _checking_a_stream(handler.stream_stream), decode, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(_checking(handler.unary_unary), decode, handler.response_serializer)


def _decoding(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return decode


def _checking(behavior: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        if isinstance(request, _Unreadable):
            async with ending_with_its_status(context):
                _check(request)
        return await behavior(request, context)

    return call


def _checking_a_stream(
    behavior: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]],
) -> Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]:
    async def readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            _check(request)
            yield request

    async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async with ending_with_its_status(context):
            async for response in behavior(readable(requests), context):
                yield response

    return call


def _check(request: object) -> None:
    if isinstance(request, _Unreadable):
        raise InvalidRequestError(f"the message cannot be read: {request.reason}; expected its type's protobuf bytes")
