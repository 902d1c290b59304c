"""Two batches at the device at once: one thread stages and launches while the device computes, a second one reports."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_server import jobs
from sluice_server.backend import Batch, LaunchingBackend, OutOfDeviceMemoryError
from sluice_server.flight import MAX_PENDING
from sluice_server.jobs import BatchResult, Computed, Job

logger = logging.getLogger(__name__)

# Each batch ends or is given up within its own time; this is for a thread that reports no more.
_MOST_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Underway:
    """A batch that was launched.

    Attributes:
        job: What was asked for.
        started_at: On the server's clock.
        finish: Waits for it; raises what was raised when it was launched.
        left_out: See BatchResult.
    """

    job: Job
    started_at: float
    finish: Callable[[], Computed]
    left_out: NDArray[np.bool_] | None


class Pipeline:
    """Computes jobs in their order; `run` is called in the thread that owns the device.

    Args:
        backend: That launches.
        on_result: A job's number and what became of it; called in the second thread.
        on_failure: The second thread has ended, so no result will be reported any more.
    """

    def __init__(
        self,
        backend: LaunchingBackend,
        on_result: Callable[[int, BatchResult], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._backend, self._on_result, self._on_failure = backend, on_result, on_failure
        self._underway: queue.Queue[_Underway | None] = queue.Queue(maxsize=MAX_PENDING)
        self._finisher = threading.Thread(target=self._finish_all, name="device-finisher", daemon=True)
        self._ended_at = 0.0

    def run(self, waiting: queue.SimpleQueue[Job | None]) -> None:
        """Launches until None comes and all is reported, or until nothing is reported any more."""
        self._finisher.start()
        while self._finisher.is_alive() and (job := waiting.get()) is not None:
            self._hand_on(self._launch(job))
        if self._finisher.is_alive():
            self._hand_on(None)
            self._finisher.join(_MOST_SECONDS)

    def _hand_on(self, one: _Underway | None) -> None:
        try:
            self._underway.put(one, timeout=_MOST_SECONDS)
        except queue.Full:
            logger.error("results are not reported any more")  # noqa: TRY400 - on_failure told why

    def _launch(self, job: Job) -> _Underway:
        started_at, left_out = time.monotonic(), None
        try:
            left_out = job.left_out(started_at)
            finish = self._launch_wanted(job.batch, left_out)
        except Exception as error:  # noqa: BLE001 - the thread that reports says it, in the order of the batches
            finish = _raising(error)
        return _Underway(job, started_at, finish, left_out)

    def _launch_wanted(self, batch: Batch, left_out: NDArray[np.bool_] | None) -> Callable[[], Computed]:
        """Launches the rows that somebody waits for; halves of a batch that does not fit are waited for here."""
        dimension = self._backend.info.dimension
        kept = jobs.choose(batch, left_out)
        if kept is None:
            return lambda: jobs.spread(None, left_out, dimension)
        try:
            launched = self._backend.launch(kept)
        except OutOfDeviceMemoryError:
            computed = jobs.embed_halves(self._backend, kept)
            return lambda: jobs.spread(computed, left_out, dimension)
        return lambda: jobs.spread((launched.wait(), None), left_out, dimension)

    def _finish_all(self) -> None:
        try:
            while (one := self._underway.get()) is not None:
                self._on_result(one.job.number, self._finish(one))
        except Exception as error:
            logger.exception("the thread that reports results ended")
            self._on_failure(f"the thread that reports results ended: {type(error).__name__}")

    def _finish(self, one: _Underway) -> BatchResult:
        attempted = jobs.attempt(self._backend, one.job.batch, one.finish)
        # While the batch before it was computed, this one was only waiting.
        began, self._ended_at = max(one.started_at, self._ended_at), time.monotonic()
        return attempted.result(began, self._ended_at - began, one.left_out)


def _raising(error: Exception) -> Callable[[], Computed]:
    def finish() -> Computed:
        raise error

    return finish
