"""The engine of this process behind the port."""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any

from sluice_server import health
from sluice_server.backend import ModelInfo
from sluice_server.engine import Engine
from sluice_server.engine_port import Computation, Reservation
from sluice_server.requests import PendingRequest, Terms, TokenRows


class LocalEngine:
    """An EnginePort: nothing of it waits but for the device.

    Args:
        engine: On the same event loop.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> ModelInfo | None:
        """See EnginePort."""
        return self._engine.info

    @property
    def fingerprint(self) -> str | None:
        """See EnginePort."""
        return self._engine.fingerprint

    async def reserve(self, tokens: int, terms: Terms) -> Reservation:
        """See EnginePort."""
        self._engine.reserve(tokens, terms)
        return Reservation(0, tokens, partial(self._engine.release, tokens))

    def compute(self, rows: TokenRows, terms: Terms, reservation: Reservation | None = None) -> Awaitable[Computation]:
        """See EnginePort."""
        if reservation is None:
            self._engine.reserve(rows.total_tokens, terms)
        else:
            self._engine.settle(reservation.tokens, rows.total_tokens, is_repeated=terms.is_repeated)
        return self._computed(self._engine.compute(rows, terms))

    async def _computed(self, computing: Awaitable[PendingRequest]) -> Computation:
        return computation(self._engine, await computing)

    def ahead_ms(self) -> float | None:
        """See EnginePort."""
        return self._engine.ahead_ms()

    async def health_document(self) -> Mapping[str, Any]:
        """See EnginePort."""
        return health.document(self._engine.facts())


def computation(engine: Engine, request: PendingRequest) -> Computation:
    """Of a request that was computed, as it is answered now."""
    assert request.result is not None, "the request was computed"
    first_started_at = request.first_started_at or request.arrived_at
    return Computation(
        request.result,
        queue_ms=max(0.0, 1000 * (first_started_at - request.arrived_at)),
        compute_ms=1000 * request.compute_seconds,
        drain_ms=engine.drain_left_ms(request),
    )
