"""What every call shares: its deadline, its trailers, and how an error ends it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from sluice_server.errors import SluiceError
from sluice_server.requests import NO_DEADLINE, Priority, Terms
from sluice_server.rpc import status
from sluice_server.rpc.core.call import ServerCall
from sluice_server.rpc.core.method import AbortError
from sluice_server.rpc.handlers import Handler, behavior, with_behavior
from sluice_server.serving import Embedded

logger = logging.getLogger(__name__)

# From Sluice's client, which knows what refused it, and from gRPC's own retries (gRFC A6).
_REPEATED = frozenset({"sluice-refusals", "grpc-previous-rpc-attempts"})
_NEVER = ("", "0")

Context = ServerCall


def terms(context: Context, priority: Priority = Priority.INTERACTIVE, *, max_wait_ms: int = 0) -> Terms:
    """Those of a call: its deadline is gRPC's or the caller's own limit, whichever comes first."""
    return Terms(priority, deadline(context, max_wait_ms), _is_repeated(context), context.waited_ms())


def deadline(context: Context, max_wait_ms: int = 0) -> float:
    """When the caller stops waiting, on the event loop's clock."""
    seconds = context.time_remaining()
    if max_wait_ms > 0:
        seconds = max_wait_ms / 1000 if seconds is None else min(seconds, max_wait_ms / 1000)
    return NO_DEADLINE if seconds is None else asyncio.get_running_loop().time() + seconds


def _is_repeated(context: Context) -> bool:
    """Whether the caller says that it asked before and was refused."""
    return any(name in _REPEATED and said not in _NEVER for name, said in context.invocation_metadata())


def ending_with_its_status(handler: Handler) -> Handler:
    """The same method; a domain error ends a call with its status, anything else is our fault, logged, and INTERNAL."""
    inner: Any = behavior(handler)

    def call(request: Any, context: Context) -> Any:
        try:
            answer = inner(request, context)
        except AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - it is told or logged
            _end(context, error)
            return None
        return None if answer is None else _awaited(answer, context)

    async def call_stream(requests: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for response in inner(requests, context):
                yield response
        except AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - it is told or logged
            _end(context, error)

    return with_behavior(handler, call_stream if handler.response_streaming else call)


async def _awaited(answer: Any, context: Context) -> Any:
    try:
        return await answer
    except AbortError:
        raise
    except Exception as error:  # noqa: BLE001 - it is told or logged
        _end(context, error)
        return None


def set_trailers(context: Context, embedded: Embedded) -> None:
    """What a client may want to know beside the answer: the queue behind it, and what its request cost."""
    drain_ms = embedded.drain_ms
    context.set_trailing_metadata((
        # What was set before stays: the request's id.
        *context.trailing_metadata(),
        *((("sluice-drain-ms", f"{drain_ms:.0f}"),) if drain_ms is not None else ()),
        ("sluice-queue-ms", f"{embedded.queue_ms:.1f}"),
        ("sluice-compute-ms", f"{embedded.compute_ms:.1f}"),
        ("sluice-tokens", str(embedded.tokens_used)),
        ("sluice-truncated", str(len(embedded.truncated))),
    ))  # fmt: skip


def _end(context: Context, error: Exception) -> None:
    """Tells the caller of an error; one that is not the domain's is logged."""
    if isinstance(error, SluiceError):
        end = status.end_of(error)
    else:
        logger.error("a request failed in the server's own code", exc_info=error)
        end = status.End(grpc.StatusCode.INTERNAL, "the server failed on this request; its log has the cause")
    context.end(end.code, end.details, (*context.trailing_metadata(), *end.trailers))
