"""What became of requests in a span of time, added up: how one process tells another of its own. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of each answered request, in milliseconds.
TIMES = ("tokenize_ms", "queue_ms", "compute_ms", "total_ms")


def no_answers() -> NDArray[np.float64]:
    """Nobody was answered."""
    return np.empty((0, len(TIMES)))


class Refused(NamedTuple):
    """Requests that were refused, and what they asked for."""

    requests: int
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Requests that began, ended and were answered.

    Attributes:
        began: By api.
        ended: By api and code.
        answers: float64 (n, 4), the TIMES of each request that was computed.
        rejected: By reason, where this process refused them itself.
    """

    began: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: NDArray[np.float64] = field(default_factory=no_answers)
    rejected: Mapping[str, Refused] = field(default_factory=dict)


@dataclass(slots=True)
class UnderWay:
    """How many requests are under way in a process that tells of them."""

    _by_api: Counter[str] = field(default_factory=Counter)

    def note(self, told: Observations) -> None:
        """It told."""
        self._by_api.update(told.began)
        for (api, _), count in told.ended.items():
            self._by_api[api] -= count

    def ended(self, code: str) -> Observations:
        """All of them ended with this code: the process is gone."""
        return Observations(ended=Counter({(api, code): count for api, count in self._by_api.items() if count > 0}))
