"""What every call shares: its deadline, its trailers, and how a domain error ends it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

from sluice_server.engine import Engine
from sluice_server.errors import OverloadedError, SluiceError
from sluice_server.rpc import status
from sluice_server.serving import NO_DEADLINE, Embedded

logger = logging.getLogger(__name__)

# From Sluice's client, which knows what refused it, and from gRPC's own retries (gRFC A6).
_REPEATED = ("sluice-refusals", "grpc-previous-rpc-attempts")

Context = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response")


def deadline(context: Context, *, max_wait_ms: int = 0) -> float:
    """When the caller stops waiting, on the event loop's clock: its gRPC deadline or its own limit."""
    remaining = context.time_remaining()
    seconds = [s for s in (remaining, max_wait_ms / 1000 if max_wait_ms > 0 else None) if s is not None]
    return asyncio.get_running_loop().time() + min(seconds) if seconds else NO_DEADLINE


def is_repeated(context: Context) -> bool:
    """Whether the caller says that it asked before and was refused."""
    return any(key in _REPEATED and value not in {"", "0"} for key, value in context.invocation_metadata() or ())


@asynccontextmanager
async def ending_with_its_status(context: Context) -> AsyncIterator[None]:
    """Ends the call with the status of a domain error; anything else is our fault, logged, and INTERNAL."""
    try:
        yield
    except SluiceError as error:
        await context.abort(status.grpc_code(error), status.message(error), _trailers(context, *status.trailers(error)))
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except Exception:
        logger.exception("a request failed in the server's own code")
        message = "the server failed on this request; its log has the cause"
        await context.abort(grpc.StatusCode.INTERNAL, message, _trailers(context))


def refused(context: Context, error: OverloadedError, nothing: Response) -> Response:
    """Ends a unary call with the refusal's status once it returns what this returns, which gRPC does not send.

    There are hundreds of them a second when it matters, and an exception through all of gRPC's layers costs more.
    """
    context.set_trailing_metadata(_trailers(context, *status.trailers(error)))
    context.set_details(status.message(error))
    context.set_code(status.grpc_code(error))
    return nothing


def set_trailers(context: Context, engine: Engine, embedded: Embedded) -> None:
    """What a client may want to know beside the answer: the queue it met, and what its request cost."""
    drain_ms = engine.drain_ms()
    context.set_trailing_metadata(_trailers(
        context,
        *((("sluice-drain-ms", f"{drain_ms:.0f}"),) if drain_ms is not None else ()),
        ("sluice-queue-ms", f"{embedded.queue_ms:.1f}"),
        ("sluice-compute-ms", f"{embedded.compute_ms:.1f}"),
        ("sluice-tokens", str(embedded.tokens_used)),
        ("sluice-truncated", str(len(embedded.truncated))),
    ))  # fmt: skip


def _trailers(context: Context, *more: tuple[str, str | bytes]) -> status.Trailers:
    """What was set before stays: the request's id."""
    return (*context.trailing_metadata(), *more)
