"""Follows every request from its arrival to its end: its id, its counts, its log line, its span."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from sluice_server.observability import request_ids
from sluice_server.observability import scope as scopes
from sluice_server.observability.observations import Observations
from sluice_server.observability.refusal_log import INTERVAL_SECONDS, RefusalLog
from sluice_server.observability.scope import Api, RequestScope

if TYPE_CHECKING:
    from sluice_server.counters import Counters
    from sluice_server.observability.spans import Tracing
    from sluice_server.serving import Embedded, EmbedOptions

logger = logging.getLogger(__name__)

# Our fault: logged as an error, one line a request.
_OURS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "500"})
# Which codes are a server's errors by OpenTelemetry's conventions (gRPC: semconv/rpc/grpc; HTTP: 5xx).
_SPAN_ERRORS = _OURS | {"DEADLINE_EXCEEDED", "UNIMPLEMENTED", "UNAVAILABLE", "503", "504"}
_SUCCESSES = frozenset({"OK", "200"})


class Recorder(Protocol):
    """Adds up requests, for one kind of metrics."""

    def begin(self, api: str) -> None:
        """A request arrived."""

    def answer(self, embedded: "Embedded") -> None:
        """A request was computed."""

    def end(self, api: str, code: str) -> None:
        """A request ended, however it did."""

    def note(self, told: Observations) -> None:
        """Another process tells of its requests."""


class RequestObserver:
    """Everything on the event loop; nothing here waits or raises on behalf of a request.

    Args:
        counters: Whose refusals are told in the log.
        recorders: Told of every request.
        tracing: None where it is off.
    """

    def __init__(
        self, counters: "Counters", recorders: Sequence[Recorder] = (), tracing: "Tracing | None" = None
    ) -> None:
        self._counters = counters
        self._recorders = recorders
        self._tracing = tracing
        self._refusals = RefusalLog()
        self._next_look: asyncio.TimerHandle | None = None

    def begin(
        self, api: Api, metadata: Mapping[str, str | bytes], own_id: str = "", *, is_stream: bool = False
    ) -> RequestScope:
        """A request arrived: the task serves it from now on.

        Args:
            api: By which it came.
            metadata: Of the call.
            own_id: The request_id of its message, where there is one.
            is_stream: The call holds requests, each of which will be told by begin_message().
        """
        trace = self._tracing.start(api, metadata) if self._tracing is not None else None
        known_as = request_ids.choose(metadata, own_id)
        return self._enter(RequestScope(api, known_as, time.perf_counter(), trace, is_stream=is_stream))

    def begin_message(self, stream: RequestScope, own_id: str) -> RequestScope:
        """A request came on a stream; the stream's own scope goes on in its own task."""
        trace = self._tracing.start_message(stream.trace) if self._tracing is not None and stream.trace else None
        known_as = request_ids.within(stream.request_id, own_id)
        return self._enter(RequestScope(stream.api, known_as, time.perf_counter(), trace))

    def observe(self, embedded: "Embedded", options: "EmbedOptions") -> None:
        """The request that the task serves was computed; it is answered before that is recorded."""
        for recorder in self._recorders:
            asyncio.get_running_loop().call_soon(recorder.answer, embedded)
        scope = scopes.current()
        if scope is not None:
            scope.embedded, scope.priority = embedded, options.terms.priority.name.lower()

    def end(self, scope: RequestScope, code: str) -> None:
        """The request is over.

        Args:
            scope: As begin() gave it.
            code: A gRPC status' name or an HTTP status.
        """
        if not scope.is_stream or code not in _SUCCESSES:
            self._count(scope, code)
        if scope.trace is not None and self._tracing is not None:
            self._tracing.end(scope, code, failed=code in _SPAN_ERRORS)
        if code in _OURS:
            logger.error("a request failed: %s %s", scope.api.label, code, extra=_facts(scope, code))
        elif logger.isEnabledFor(logging.DEBUG):
            facts = _facts(scope, code)
            logger.debug("%s %s in %.1f ms", scope.api.label, code, facts["total_ms"], extra=facts)
        if code not in _SUCCESSES and self._next_look is None:
            self._look_at_refusals()
        scopes.enter(None)

    def note(self, told: Observations) -> None:
        """A front end tells of its requests; their log lines and spans are its own."""
        for recorder in self._recorders:
            recorder.note(told)
        if self._next_look is None and any(code not in _SUCCESSES for _, code in told.ended):
            self._look_at_refusals()

    def close(self, within_seconds: float) -> None:
        """Sends the spans that are left; blocks, at most so long. Call it off the loop, when no request is left."""
        if self._tracing is not None:
            self._tracing.close(within_seconds)

    def stop(self) -> None:
        """Says no more of refusals; on the loop."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _enter(self, scope: RequestScope) -> RequestScope:
        scopes.enter(scope)
        if not scope.is_stream:
            for recorder in self._recorders:
                recorder.begin(scope.api.label)
        return scope

    def _count(self, scope: RequestScope, code: str) -> None:
        for recorder in self._recorders:
            if scope.is_stream:
                recorder.begin(scope.api.label)
            recorder.end(scope.api.label, code)

    def _look_at_refusals(self) -> None:
        loop = asyncio.get_running_loop()
        sentence = self._refusals.look(loop.time(), self._counters.rejected_requests)
        if sentence is not None:
            # The line is about many requests: it carries the id of none.
            serving = scopes.current()
            scopes.enter(None)
            logger.warning(sentence)
            scopes.enter(serving)
        self._next_look = None
        if self._refusals.began_at is not None:
            self._next_look = loop.call_later(INTERVAL_SECONDS, self._look_at_refusals)


def _facts(scope: RequestScope, code: str) -> dict[str, object]:
    """What a log line says of a request."""
    facts: dict[str, object] = {
        "api": scope.api.label,
        "code": code,
        "total_ms": round(1000 * (time.perf_counter() - scope.started), 3),
    }
    embedded = scope.embedded
    if embedded is not None:
        facts |= {
            "tokens": embedded.tokens_used,
            "inputs": len(embedded.embeddings),
            "tokenize_ms": round(embedded.tokenize_ms, 3),
            "queue_ms": round(embedded.queue_ms, 3),
            "compute_ms": round(embedded.compute_ms, 3),
        }
    return facts
