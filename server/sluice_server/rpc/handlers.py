"""Handlers of gRPC methods as values: the same method with another behavior."""

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from sluice_server.rpc.core.method import Method

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior: TypeAlias = Callable[[Any, Any], Any]

_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behavior(handler: Any) -> Behavior:
    """What the handler does."""
    found: Behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return found


def with_behavior(handler: Any, behavior: Behavior, decode: Callable[[bytes], Any] | None = None) -> Handler:
    """The handler of the same method that does something else, and may read its messages by other means."""
    make = _MAKERS[handler.request_streaming, handler.response_streaming]
    return make(behavior, decode or handler.request_deserializer, handler.response_serializer)


def as_method(handler: Any) -> Method:
    """The handler as the server takes it."""
    return Method(
        behavior(handler), handler.request_streaming, handler.request_deserializer, handler.response_serializer
    )
