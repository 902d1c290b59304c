"""The device worker: one thread that alone owns the model and the device."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sluice_server.backend import Backend, Batch, LaunchingBackend
from sluice_server.cost import Measurement
from sluice_server.flight import MAX_PENDING
from sluice_server.jobs import BatchResult, Job, run_job
from sluice_server.pipeline import Pipeline
from sluice_server.threads import DEVICE_NICENESS, yield_cores

logger = logging.getLogger(__name__)

_MEASURED_RUNS = 3


@dataclass(frozen=True, slots=True)
class WorkerCallbacks:
    """How the worker speaks; each is called in a thread of the worker's and must return at once.

    Attributes:
        on_phase: Phase, reason, step, steps.
        on_ready: The loaded model, its fingerprint, and the timings of the warm-up.
        on_result: The job's number and what became of it.
        on_failure: The thread cannot go on; a sentence says why.
    """

    on_phase: Callable[[str, str, int | None, int | None], None]
    on_ready: Callable[[Backend, str, list[Measurement]], None]
    on_result: Callable[[int, BatchResult], None]
    on_failure: Callable[[str], None]


class Worker:
    """Loads, warms up, then computes batches in order until it is stopped.

    Args:
        load: Makes the backend; called in the worker's thread.
        warm_up_batches: The batches to warm up with, once the model is known.
        callbacks: How to speak.
    """

    def __init__(
        self,
        load: Callable[[], Backend],
        warm_up_batches: Callable[[Backend], list[Batch]],
        callbacks: WorkerCallbacks,
    ) -> None:
        self._load = load
        self._warm_up_batches = warm_up_batches
        self._callbacks = callbacks
        # Bounded by submit(): one that bounds itself takes its locks in Python, for each batch.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="device-worker", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hands over a batch; the caller never has more than MAX_PENDING under way.

        Raises:
            queue.Full: It has: a mistake of ours.
        """
        if self._jobs.qsize() > MAX_PENDING:
            raise queue.Full
        self._jobs.put(job)

    def stop(self, within_seconds: float) -> None:
        """Ends the thread after the batches that it holds."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join(within_seconds)

    def _run(self) -> None:
        # On a CPU the model shares its cores with the event loop, which must not wait: to refuse is its work, too.
        yield_cores(DEVICE_NICENESS)
        try:
            backend = self._load()
            timings = self._warm_up(backend)
            self._callbacks.on_ready(backend, backend.fingerprint(), timings)
        except Exception as error:
            logger.exception("the model could not be brought up")
            self._callbacks.on_failure(str(error) or type(error).__name__)
            return
        if isinstance(backend, LaunchingBackend):
            pipeline = Pipeline(backend, self._callbacks.on_result, self._callbacks.on_failure)
            pipeline.run(self._jobs)
            return
        while (job := self._jobs.get()) is not None:
            self._callbacks.on_result(job.number, run_job(backend, job))

    def _warm_up(self, backend: Backend) -> list[Measurement]:
        """Runs every shape; the first pays for allocation and compilation, the quickest of the others counts.

        A run is only ever slowed by what else the machine does: the quickest says what the device can do.
        """
        batches = self._warm_up_batches(backend)
        timings = []
        for step, batch in enumerate(batches):
            self._callbacks.on_phase("warming", f"batch of {batch.useful_tokens} tokens", step, len(batches))
            if isinstance(backend, LaunchingBackend) and not backend.prepare(batch):
                continue
            backend.embed(batch)
            seconds = min(_timed(backend, batch) for _ in range(_MEASURED_RUNS))
            timings.append(Measurement(batch.bucket, batch.useful_tokens, seconds))
        return timings


def _timed(backend: Backend, batch: Batch) -> float:
    started = time.perf_counter()
    backend.embed(batch)
    return time.perf_counter() - started
