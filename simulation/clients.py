"""What becomes of requests: answered in time, answered late, refused and tried again, or given up.

The objective is `OBJECTIVE_SECONDS` from a client's first attempt to its answer.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulation.traffic import POD_TOKENS_PER_SECOND, REQUEST_TOKENS, STEP_SECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

OBJECTIVE_SECONDS = 1.0
OWN_SECONDS = REQUEST_TOKENS / POD_TOKENS_PER_SECOND
"""A request's own computation, once it is its turn."""
RETRY_STEPS = (2, 4)
"""Steps until the first and second repetition of a refused request: about the push-back that servers ask for."""


@dataclass(slots=True)
class _Cohort:
    """Requests of one age that arrive in one step."""

    count: int
    born: int
    attempt: int


class Clients:
    """All requests of a run."""

    def __init__(self, requests: NDArray[np.int64], *, retries: bool, measure_from_step: int) -> None:
        self._fresh = requests.reshape(-1)
        self._retries = RETRY_STEPS if retries else ()
        self._waiting: dict[int, list[_Cohort]] = defaultdict(list)
        self._taken: dict[int, int] = {}
        self._measure_from = measure_from_step
        self.in_time = 0.0
        self.asked = int(self._fresh[measure_from_step:].sum())
        self.refusals = 0

    @property
    def share(self) -> float:
        """Of the requests since measuring began, those answered in time."""
        return self.in_time / max(1, self.asked)

    def due(self, first: int, steps: int) -> NDArray[np.int64]:
        """Requests that arrive in each of the steps, as far as known now."""
        arrivals = self._fresh[first : first + steps]
        if self._waiting:
            arrivals = arrivals.copy()
            for k in range(steps):
                repeated = sum(c.count for c in self._waiting.get(first + k, ()))
                arrivals[k] += repeated
                self._taken[first + k] = repeated
        return arrivals

    def due_now(self, step: int) -> int:
        """Repetitions for this step that came up after `due` was asked."""
        return sum(c.count for c in self._waiting.get(step, ())) - self._taken.pop(step, 0)

    def fresh(self, step: int) -> int:
        """Requests that are asked in this step for the first time."""
        return int(self._fresh[step])

    def answer_all_in_time(self, first: int, steps: int) -> None:
        """Nobody was refused before, and nobody waited for long."""
        if first >= self._measure_from:
            self.in_time += float(self._fresh[first : first + steps].sum())

    @property
    def repeat(self) -> bool:
        """Whether refused requests wait for their next attempt."""
        return bool(self._waiting)

    def refuse_all(self, step: int) -> int:
        """No pod receives traffic."""
        cohorts = self._arrivals(step)
        for cohort in cohorts:
            self._refuse(step, cohort, cohort.count)
        return sum(c.count for c in cohorts)

    def settle(
        self,
        step: int,
        arrived: NDArray[np.int64],
        refused: NDArray[np.int64],
        wait_before: NDArray[np.float64],
        wait_after: NDArray[np.float64],
    ) -> None:
        """One step's arrivals, per pod: the waiting times are those at its beginning and its end, in seconds."""
        total, lost = int(arrived.sum()), int(refused.sum())
        admitted = arrived - refused
        least, most = np.minimum(wait_before, wait_after), np.maximum(wait_before, wait_after)
        for cohort in self._arrivals(step):
            gone = round(cohort.count * lost / total) if total else 0
            self._refuse(step, cohort, gone)
            left = OBJECTIVE_SECONDS - OWN_SECONDS - (step - cohort.born) * STEP_SECONDS
            share = np.clip((left - least) / np.maximum(most - least, 1e-9), 0.0, 1.0)
            if total:
                self._count(cohort.born, cohort.count * float((admitted * share).sum()) / total)

    def _arrivals(self, step: int) -> list[_Cohort]:
        self._taken.pop(step, None)
        return [_Cohort(int(self._fresh[step]), step, 0), *self._waiting.pop(step, ())]

    def _count(self, born: int, requests: float) -> None:
        if born >= self._measure_from:
            self.in_time += requests

    def _refuse(self, step: int, cohort: _Cohort, count: int) -> None:
        self.refusals += count
        if count and cohort.attempt < len(self._retries):
            due = step + self._retries[cohort.attempt]
            self._waiting[due].append(_Cohort(count, cohort.born, cohort.attempt + 1))
