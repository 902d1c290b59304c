"""One call of a client: what its method may ask and say, and how the core carries it out."""

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from sluice_server.rpc.core.binding import cygrpc
from sluice_server.rpc.core.method import AbortError, Method
from sluice_server.rpc.core.outbox import Outbox

logger = logging.getLogger(__name__)

Trailers: TypeAlias = tuple[tuple[str, str | bytes], ...]
_NO_FLAGS = 0
_FAILED = "a method failed"
# Seconds since 1970: the wire knows none that is later, and the core says never as a number beyond it.
_LAST_DEADLINE = 1e12


class ServerCall:
    """What a method is given beside its request: of grpc.aio.ServicerContext what methods use here.

    Lives as long as the core has an operation of it under way, which holds its tag. Whatever becomes of it, it is ended
    once, with its last operations.

    Args:
        event: The core's, of the call's arrival.
        method: That was called; None where there is no such method.
        outbox: Takes what ends it.
        on_over: Called when the core has no operation of it any more.
    """

    __slots__ = (
        "_began",
        "_code",
        "_core",
        "_deadline",
        "_metadata",
        "_method",
        "_name",
        "_on_over",
        "_outbox",
        "_seen_at",
        "_task",
        "_trailers",
        "_watched",
    )

    def __init__(self, event: Any, method: Method | None, outbox: Outbox, on_over: Callable[[], None]) -> None:
        self._core = event.call
        self._name: bytes = event.call_details.method
        self._deadline: float = event.call_details.deadline
        self._metadata: Trailers = event.invocation_metadata
        self._method = method
        self._seen_at = 0.0
        self._outbox, self._on_over = outbox, on_over
        self._trailers: Trailers = ()
        self._code: grpc.StatusCode | None = None
        self._task: asyncio.Task[None] | None = None
        self._began = self._watched = False

    # --- for methods ----------------------------------------------------------------------------

    def waited_ms(self) -> float:
        """For the event loop, from when its message was seen; what its caller took for that is its own."""
        return 1000 * (time.monotonic() - self._seen_at)

    def invocation_metadata(self) -> Trailers:
        """The caller's."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        return None if self._deadline > _LAST_DEADLINE else max(0.0, self._deadline - time.time())

    def trailing_metadata(self) -> Trailers:
        """As it was set."""
        return self._trailers

    def set_trailing_metadata(self, trailers: Trailers) -> None:
        """Goes with the status."""
        self._trailers = trailers

    def code(self) -> grpc.StatusCode | None:
        """With which the call was ended; None before."""
        return self._code

    def end(self, code: grpc.StatusCode, details: str, trailers: Trailers) -> None:
        """Sends the status, and nothing after it; a call that has ended stays as it is.

        No message goes before it: only then do gRPC's own clients retry by policy.
        """
        if self._code is None:
            self._finish(code, details.encode(), trailers)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        """Ends the call and its method.

        Raises:
            AbortError: Always.
        """
        self.end(code, details, self._trailers)
        raise AbortError

    async def write(self, response: Any) -> None:
        """Sends a message of a stream; returns once the next may follow.

        Raises:
            CancelledError: The call is over.
        """
        assert self._method is not None, "a method writes"
        message = cygrpc.SendMessageOperation(self._method.encode(response), _NO_FLAGS)
        if not await self._done((*self._headers(), message)):
            raise asyncio.CancelledError

    # --- for the server -------------------------------------------------------------------------

    def read(self) -> None:
        """Asks for the request, where there is but one; any thread may do so."""
        if self._method is not None and not self._method.takes_stream:
            self._core.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._on_message)

    def begin(self, seen_at: float) -> None:
        """It was seen then, on the monotonic clock; starts the method where its requests come later."""
        self._seen_at = seen_at
        if self._method is None:
            name = self._name.decode(errors="replace")
            self.end(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {name}", ())
        elif self._method.takes_stream:
            self._start(self._method, self._requests(self._method))

    # --- inside ---------------------------------------------------------------------------------

    def _on_message(self, event: Any, seen_at: float) -> None:
        self._seen_at = seen_at
        message = event.batch_operations[0].message()
        if message is None:
            # The caller has left, or sent more than is allowed, which the core tells it; or it sent nothing.
            self.end(grpc.StatusCode.INVALID_ARGUMENT, "the call brought no message; expected one", ())
        elif self._method is not None:
            self._start(self._method, message)

    def _start(self, method: Method, request: Any) -> None:
        # What the method sets of the context is this call's alone.
        context = contextvars.copy_context()
        answer = context.run(self._call, method, request)
        if answer is None:
            return  # of a thousand refused calls a second, none was a task
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._serve(method, answer), context=context)
        # After the task's first step: whoever leaves cancels what has begun, and so gives back what it took.
        loop.call_soon(self._watch)

    def _call(self, method: Method, request: Any) -> Any:
        """What the method's behavior returns; None where the call is over."""
        try:
            answer = method.behavior(request if method.takes_stream else method.decode(request), self)
        except AbortError:
            return None
        except Exception:
            logger.exception(_FAILED)
            self._fail()
            return None
        return answer if self._code is None else None

    def _watch(self) -> None:
        if self._code is None:
            self._watched = True
            self._core.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._on_close)

    def _on_close(self, event: Any, _: float) -> None:
        """The caller has left, its deadline has passed, or the call has ended as it should."""
        if self._code is None and self._task is not None and event.batch_operations[0].cancelled():
            self._task.cancel()

    async def _serve(self, method: Method, answer: Any) -> None:
        try:
            response = await self._response(method, answer)
        except AbortError:
            return
        except asyncio.CancelledError:
            self.end(grpc.StatusCode.CANCELLED, "the call was cancelled", self._trailers)
        except Exception:
            logger.exception(_FAILED)
            self._fail()
        else:
            if self._code is None:
                self._finish(grpc.StatusCode.OK, b"", self._trailers, response)

    def _fail(self) -> None:
        self.end(grpc.StatusCode.UNKNOWN, "the method failed; the server's log has the cause", self._trailers)

    async def _response(self, method: Method, answer: Any) -> bytes | None:
        """The response's bytes; None of a stream, whose responses are sent one by one, and of a call that has ended."""
        if hasattr(answer, "__aiter__"):
            async with aclosing(answer) as responses:
                async for response in responses:
                    await self.write(response)
            return None
        response = await answer
        return None if response is None or self._code is not None else method.encode(response)

    async def _requests(self, method: Method) -> AsyncIterator[Any]:
        while True:
            read = cygrpc.ReceiveMessageOperation(_NO_FLAGS)
            await self._done((read,))
            message = read.message()
            if message is None:
                return
            yield method.decode(message)

    def _done(self, operations: tuple[Any, ...]) -> asyncio.Future[bool]:
        """Whether the core could carry them out.

        Raises:
            CancelledError: The call has ended.
        """
        if self._code is not None:
            raise asyncio.CancelledError
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def on_event(event: Any, _: float) -> None:
            if not done.done():
                done.set_result(event.success)

        self._core.start_server_batch(operations, on_event)
        return done

    def _finish(self, code: grpc.StatusCode, details: bytes, trailers: Trailers, message: bytes | None = None) -> None:
        """All that is left in one batch: each costs an event."""
        self._code = code
        number: int = code.value[0]
        self._outbox.put(
            self._core,
            (
                *self._headers(),
                *(() if message is None else (cygrpc.SendMessageOperation(message, _NO_FLAGS),)),
                cygrpc.SendStatusFromServerOperation(trailers, number, details, _NO_FLAGS),
                *(() if self._watched else (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)),
            ),
            self._on_finished,
        )

    def _headers(self) -> tuple[Any, ...]:
        """Before whatever is sent first."""
        if self._began:
            return ()
        self._began = True
        return (cygrpc.SendInitialMetadataOperation((), _NO_FLAGS),)

    def _on_finished(self, _: Any, __: float) -> None:
        self._on_over()
