"""Follows each gRPC request from its arrival to its end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from sluice_server.observability import request_ids
from sluice_server.observability import scope as scopes
from sluice_server.observability.observer import RequestObserver
from sluice_server.observability.scope import EMBED, EMBED_STREAM, INFER, Api, RequestScope
from sluice_server.rpc.calls import Context
from sluice_server.rpc.handlers import Handler, behavior, with_behavior

API_OF = {api.span_name: api for api in (EMBED, EMBED_STREAM, INFER)}


@dataclass(slots=True)
class Outcome:
    """How one request of a stream ended: a gRPC status' name."""

    code: str = "OK"


def observed(handler: Handler, api: Api, observer: RequestObserver) -> Handler:
    """The same method; each of its calls gets its id, and the observer is told how it went."""
    inner: Any = behavior(handler)

    def begin(context: Context, own_id: str = "", *, is_stream: bool = False) -> RequestScope:
        scope = observer.begin(api, dict(context.invocation_metadata()), own_id, is_stream=is_stream)
        context.set_trailing_metadata(((request_ids.HEADER, scope.request_id),))
        return scope

    def call(request: Any, context: Context) -> Any:
        scope = begin(context, getattr(request, "request_id", ""))
        try:
            answer = inner(request, context)
        except BaseException as error:
            observer.end(scope, _said(context) or _code_of(error, context))
            raise
        if answer is not None:
            return awaited(answer, context, scope)
        observer.end(scope, _said(context) or "OK")
        return None

    async def awaited(answer: Any, context: Context, scope: RequestScope) -> Any:
        code = "OK"
        try:
            return await answer
        except BaseException as error:
            code = _code_of(error, context)
            raise
        finally:
            observer.end(scope, _said(context) or code)

    async def call_stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        scope = begin(context, is_stream=True)
        code = "OK"
        try:
            async for response in inner(requests, context):
                yield response
        except BaseException as error:
            code = _code_of(error, context)
            raise
        finally:
            observer.end(scope, _said(context) or code)

    return with_behavior(handler, call_stream if handler.response_streaming else call)


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


def _code_of(error: BaseException, context: Context) -> str:
    """How a call ended that nobody gave a status."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        remaining = context.time_remaining()
        return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"
    return "UNKNOWN"
