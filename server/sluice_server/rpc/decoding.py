"""Bytes that are no message of the call's type: the caller's fault, said as such."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from sluice_server.errors import InvalidRequestError
from sluice_server.rpc.calls import Context
from sluice_server.rpc.handlers import Handler, behavior, with_behavior


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands where a message would stand."""

    reason: str


def readable(handler: Handler) -> Handler:
    """The same method; it raises InvalidRequestError on unreadable bytes, on which gRPC answers an exception's text.

    A stream hears it where it reads them, so that what it read before can be answered.
    """
    inner = behavior(handler)

    def call(request: Any, context: Context) -> Any:
        _check(request)
        return inner(request, context)

    async def checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            _check(request)
            yield request

    async def call_stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for response in inner(checked(requests), context):
            yield response

    decode = _decoding(handler.request_deserializer)
    return with_behavior(handler, call_stream if handler.request_streaming else call, decode)


def _decoding(deserializer: Any) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return decode


def _check(request: object) -> None:
    if isinstance(request, _Unreadable):
        raise InvalidRequestError(f"the message cannot be read: {request.reason}; expected its type's protobuf bytes")
