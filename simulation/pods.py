"""The queues of the pods that serve: what waits, what is computed, what is refused, what is answered too late.

A pod computes at its own rate for as long as anything is queued, and refuses what it could not compute within the
drain limit, as Sluice's admission does. Queues move in steps of a quarter of a second. Within a step arrivals are
spread evenly, so waiting times lie evenly between those of its beginning and its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulation.traffic import REQUEST_TOKENS, STEP_SECONDS, STEPS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simulation.clients import Clients

DRAIN_LIMIT_SECONDS = 1.5
"""What Sluice's admission fills of a BACKPRESSURE_MAX_DRAIN_MS of 2300: 65 %."""
WINDOW_SECONDS = 60
"""How far back per-pod measurements are kept."""
_IDLE = 1e-9


@dataclass(frozen=True, slots=True)
class Second:
    """What happened in one second, over all pods; requests."""

    asked: int
    """Arrivals at pods, repeated ones included."""
    in_system: float
    """Waiting or being computed, on average."""


class Pods:
    """Serving pods as arrays in one order; pods that join or leave rebuild them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.uids: tuple[int, ...] = ()
        self.rate = np.zeros(0)
        self.queued = np.zeros(0)
        """Tokens."""
        self.offered = np.zeros(0)
        """Tokens since boot, refused ones included; what is asked again does not count, as clients tell that it is."""
        self.in_system = np.zeros((WINDOW_SECONDS, 0))
        """Requests in the system, for each of the last seconds."""
        self.busy = np.zeros((WINDOW_SECONDS, 0))
        """Share of each of the last seconds that the device was busy."""
        self.seconds = np.zeros(0)
        """Since the pod began to serve."""
        self._routed = np.zeros(0, dtype=np.int64)
        self._row = 0
        self._rng = rng

    def rebuild(self, uids: Sequence[int], rates: Sequence[float], routed: Sequence[int]) -> None:
        """Takes the pods of now; those already known keep their state.

        Args:
            uids: of the pods that serve.
            rates: tokens per second, in the same order.
            routed: positions of those that receive traffic.
        """
        known = {uid: i for i, uid in enumerate(self.uids)}
        old = [known.get(uid, -1) for uid in uids]

        def moved(values: NDArray[np.float64]) -> NDArray[np.float64]:
            padded = np.concatenate([values, np.zeros((*values.shape[:-1], 1))], axis=-1)
            return np.asarray(padded[..., old])

        self.queued, self.offered, self.seconds = moved(self.queued), moved(self.offered), moved(self.seconds)
        self.in_system, self.busy = moved(self.in_system), moved(self.busy)
        self.uids, self.rate = tuple(uids), np.array(rates, dtype=float)
        self._routed = np.array(routed, dtype=np.int64)

    @property
    def routed(self) -> int:
        """Pods that receive traffic."""
        return len(self._routed)

    def mean_in_system(self, seconds: int) -> NDArray[np.float64]:
        """Requests in each pod's system, averaged over the last seconds or since it serves."""
        rows = (self._row - np.arange(seconds)) % WINDOW_SECONDS
        return np.asarray(self.in_system[rows].sum(axis=0) / np.clip(self.seconds, 1, seconds))

    def busy_fraction(self, seconds: int) -> NDArray[np.float64]:
        """Share of the last seconds that each device was busy."""
        rows = (self._row - np.arange(seconds)) % WINDOW_SECONDS
        return np.asarray(self.busy[rows].sum(axis=0) / np.clip(self.seconds, 1, seconds))

    def serve(self, second: int, clients: Clients) -> Second:
        """One second of arrivals, computing and refusing."""
        first = second * STEPS_PER_SECOND
        if not len(self._routed):
            asked = sum(clients.refuse_all(first + k) for k in range(STEPS_PER_SECOND))
            self._compute_only()
            return Second(asked, self._note(0))
        arrivals = clients.due(first, STEPS_PER_SECOND)
        split = self._spread(arrivals)
        queues = self._without_limit(split)
        if self._is_quiet(queues) and not clients.repeat:
            clients.answer_all_in_time(first, STEPS_PER_SECOND)
            computed = self.queued + split.sum(axis=0) * REQUEST_TOKENS - queues[-1]
            self.queued = queues[-1]
            self.offered = self.offered + split.sum(axis=0) * REQUEST_TOKENS
            return Second(int(arrivals.sum()), self._note(queues.mean(axis=0), computed))
        return self._with_limit(first, split, clients)

    def _spread(self, arrivals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Requests per step and pod, from requests per step: independent clients, each round robin."""
        chosen = self._routed
        full = np.zeros((len(arrivals), len(self.uids)), dtype=np.int64)
        full[:, chosen] = self._rng.multinomial(arrivals, np.full(len(chosen), 1 / len(chosen)))
        return full

    def _without_limit(self, split: NDArray[np.int64]) -> NDArray[np.float64]:
        """Lindley's recursion in closed form: queued tokens at the end of each step."""
        path = np.cumsum(split * float(REQUEST_TOKENS) - self.rate * STEP_SECONDS, axis=0)
        lowest = np.minimum.accumulate(path, axis=0)
        return np.asarray(path - np.minimum(lowest, -self.queued))

    def _is_quiet(self, queues: NDArray[np.float64]) -> bool:
        """Whether nothing can have been refused or late in this second."""
        most = np.maximum(queues.max(axis=0), self.queued)
        return bool((most < self.rate * _QUIET_SECONDS).all())

    def _with_limit(self, first: int, split: NDArray[np.int64], clients: Clients) -> Second:
        asked, total, computed = 0, np.zeros(len(self.uids)), np.zeros(len(self.uids))
        limit = self.rate * DRAIN_LIMIT_SECONDS
        for k, wanted in enumerate(split):
            late = clients.due_now(first + k)
            arrived = wanted + self._spread(np.array([late]))[0] if late else wanted
            served = np.minimum(self.queued + arrived * REQUEST_TOKENS, self.rate * STEP_SECONDS)
            over = self.queued + arrived * REQUEST_TOKENS - served - limit
            refused = np.clip(np.ceil(over / REQUEST_TOKENS - _IDLE), 0, arrived).astype(np.int64)
            before = self.queued
            after = np.maximum(before + (arrived - refused) * REQUEST_TOKENS - self.rate * STEP_SECONDS, 0.0)
            clients.settle(first + k, arrived, refused, before / self.rate, after / self.rate)
            computed += before + (arrived - refused) * REQUEST_TOKENS - after
            self.queued = after
            self.offered = self.offered + arrived * REQUEST_TOKENS * _share(clients.fresh(first + k), arrived)
            total += after
            asked += int(arrived.sum())
        return Second(asked, self._note(total / len(split), computed))

    def _compute_only(self) -> None:
        self.queued = np.maximum(self.queued - self.rate, 0.0)

    def _note(self, queued: NDArray[np.float64] | int, computed: NDArray[np.float64] | None = None) -> float:
        """Keeps the second's measurements; returns requests in the system."""
        self._row = (self._row + 1) % WINDOW_SECONDS
        self.seconds = self.seconds + 1
        done = np.zeros(len(self.uids)) if computed is None else computed
        share = np.minimum(done / self.rate, 1.0)
        # A request in computation is in the system too: throughput times its own time, by Little's law.
        self.busy[self._row] = share
        self.in_system[self._row] = queued / REQUEST_TOKENS + share
        return float(self.in_system[self._row].sum())


def _share(fresh: int, arrived: NDArray[np.int64]) -> float:
    return fresh / total if (total := int(arrived.sum())) else 0.0


_QUIET_SECONDS = 0.6
"""Below this much waiting, a request is in time: the objective less its own time at half speed."""
