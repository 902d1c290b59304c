"""Follows each gRPC request: outermost, so that what the other interceptors refuse is seen, too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from sluice_server.observability import request_ids
from sluice_server.observability import scope as scopes
from sluice_server.observability.observer import RequestObserver
from sluice_server.observability.scope import EMBED, EMBED_STREAM, INFER, Api
from sluice_server.rpc.calls import Context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_APIS = {f"/{api.span_name}": api for api in (EMBED, EMBED_STREAM, INFER)}


@dataclass(slots=True)
class Outcome:
    """How one request of a stream ended: a gRPC status' name."""

    code: str = "OK"


class ObservingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Gives each embedding call its id, and tells the observer how it went. Health and the like pass unseen.

    Args:
        observer: Told.
    """

    def __init__(self, observer: RequestObserver) -> None:
        self._observer = observer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The same handler, followed."""
        handler: Any = await continuation(handler_call_details)
        api = _APIS.get(str(handler_call_details.method))
        if api is None or handler is None:
            return handler  # type: ignore[no-any-return] # no such method, or not one of ours
        metadata: dict[str, str | bytes] = dict(handler_call_details.invocation_metadata or ())
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._following_a_stream(api, metadata, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._following(api, metadata, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _following(
        self, api: Api, metadata: dict[str, str | bytes], behavior: Callable[[Any, Context], Awaitable[Any]]
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            scope = self._observer.begin(api, metadata, getattr(request, "request_id", ""))
            context.set_trailing_metadata(((request_ids.HEADER, scope.request_id),))
            try:
                answer = await behavior(request, context)
            except BaseException as error:
                code = _code(error, context)
                raise
            else:
                # A refusal returns, too.
                code = _said(context) or "OK"
                return answer
            finally:
                self._observer.end(scope, code)

        return call

    def _following_a_stream(
        self,
        api: Api,
        metadata: dict[str, str | bytes],
        behavior: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]],
    ) -> Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]:
        async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            scope = self._observer.begin(api, metadata, is_stream=True)
            context.set_trailing_metadata(((request_ids.HEADER, scope.request_id),))
            code = "OK"
            try:
                async for response in behavior(requests, context):
                    yield response
            except BaseException as error:
                code = _code(error, context)
                raise
            finally:
                self._observer.end(scope, code)

        return call


@contextmanager
def message_of_stream(observer: RequestObserver | None, request_id: str) -> Iterator[Outcome]:
    """Follows one request of a stream, in the request's own task; its code is what the outcome says at the end."""
    stream, outcome = scopes.current(), Outcome()
    if observer is None or stream is None:
        yield outcome
        return
    scope = observer.begin_message(stream, request_id)
    try:
        yield outcome
    except BaseException:
        outcome.code = "CANCELLED"
        raise
    finally:
        observer.end(scope, outcome.code)


def _said(context: Context) -> str | None:
    """The status other than OK that our own code has given the call."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK else None


def _code(error: BaseException, context: Context) -> str:
    """How a call ended that did not end well."""
    said = _said(context)
    if said is not None:
        return said
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        remaining = context.time_remaining()
        return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"
    return "UNKNOWN"
