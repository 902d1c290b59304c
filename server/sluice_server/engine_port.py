"""The seam between the flow of a request and the engine: the engine may run in this process or in another one."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sluice_server.backend import ModelInfo
from sluice_server.requests import Computed, Terms, TokenRows


@dataclass(frozen=True, slots=True)
class Reservation:
    """Tokens that the engine keeps for a request; computing consumes them.

    Attributes:
        number: By which the engine knows it, where that is in another process.
        tokens: Kept.
        release: Gives them back, where the request will not be computed.
    """

    number: int
    tokens: int
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Computation:
    """What became of a request's rows.

    Attributes:
        computed: Their embeddings, in the order of the rows.
        queue_ms: Until the device began.
        compute_ms: Device time of the batches that held them.
        drain_ms: Until what was still queued then is computed, as of the answer; None while unknown.
    """

    computed: Computed
    queue_ms: float
    compute_ms: float
    drain_ms: float | None


class EnginePort(Protocol):
    """Admission and computation, as the flow of a request sees them."""

    @property
    def info(self) -> ModelInfo | None:
        """The model's; None until it is warm."""

    @property
    def fingerprint(self) -> str | None:
        """Of the model's embeddings; None until it is warm."""

    async def reserve(self, tokens: int, terms: Terms) -> Reservation:
        """Admits a request of about so many tokens and keeps them.

        Raises:
            SluiceError: Not ready, draining, failed, overloaded, or the deadline is too short.
        """

    def compute(self, rows: TokenRows, terms: Terms, reservation: Reservation | None = None) -> Awaitable[Computation]:
        """Computes valid rows; consumes the reservation however it ends, and admits the rows where there is none.

        What is returned must be awaited: it gives back what was taken in.

        Raises:
            SluiceError: Refused, at once or when it is awaited; late, or the batch or the server failed.
        """

    def ahead_ms(self) -> float | None:
        """What an interactive request that came now would wait for others; None while unknown."""

    async def health_document(self) -> Mapping[str, Any]:
        """The document of GET /health, at this moment."""
