"""The device worker: one thread that alone owns the model and the device."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sluice_server.backend import Backend, Batch, BatchOutput, OutOfDeviceMemoryError
from sluice_server.cost import Measurement
from sluice_server.errors import BatchFailedError

logger = logging.getLogger(__name__)

# One batch runs and one is prefetched.
MAX_PENDING = 2
_MEASURED_RUNS = 3


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one batch.

    Attributes:
        output: None where the batch failed.
        error: None where it did not.
        started_at: On the server's clock.
        busy_seconds: Device time.
    """

    output: BatchOutput | None
    error: BatchFailedError | None
    started_at: float
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerCallbacks:
    """How the worker speaks; each is called in the worker's thread and must return at once.

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
        self._jobs: queue.Queue[tuple[int, Batch] | None] = queue.Queue(maxsize=MAX_PENDING + 1)
        self._thread = threading.Thread(target=self._run, name="device-worker", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, number: int, batch: Batch) -> None:
        """Hands over a batch; the caller never has more than MAX_PENDING under way.

        Raises:
            queue.Full: It has: a mistake of ours.
        """
        self._jobs.put_nowait((number, batch))

    def stop(self, within_seconds: float) -> None:
        """Ends the thread after the batches that it holds."""
        if self._thread.is_alive():
            self._jobs.put(None, timeout=within_seconds)
            self._thread.join(within_seconds)

    def _run(self) -> None:
        try:
            backend = self._load()
            timings = self._warm_up(backend)
            self._callbacks.on_ready(backend, backend.fingerprint(), timings)
        except Exception as error:
            logger.exception("the model could not be brought up")
            self._callbacks.on_failure(str(error) or type(error).__name__)
            return
        while (job := self._jobs.get()) is not None:
            number, batch = job
            self._callbacks.on_result(number, self._compute(backend, batch))

    def _warm_up(self, backend: Backend) -> list[Measurement]:
        """Runs every shape; the first pays for allocation and compilation, the quickest of the others counts.

        A run is only ever slowed by what else the machine does: the quickest says what the device can do.
        """
        batches = self._warm_up_batches(backend)
        timings = []
        for step, batch in enumerate(batches):
            self._callbacks.on_phase("warming", f"batch of {batch.useful_tokens} tokens", step, len(batches))
            backend.embed(batch)
            seconds = min(_timed(backend, batch) for _ in range(_MEASURED_RUNS))
            timings.append(Measurement(batch.bucket, batch.useful_tokens, seconds))
        return timings

    def _compute(self, backend: Backend, batch: Batch) -> BatchResult:
        """One batch; whatever goes wrong fails this batch, and the thread lives on."""
        started_at, started = time.monotonic(), time.perf_counter()
        output, error = None, None
        try:
            output = _embed_bisecting(backend, batch)
        except Exception as cause:
            logger.exception("a batch failed", extra={"tokens": batch.useful_tokens, "bucket": batch.bucket})
            error = BatchFailedError(f"the device failed on a batch: {type(cause).__name__}")
        return BatchResult(output, error, started_at, time.perf_counter() - started)


def _timed(backend: Backend, batch: Batch) -> float:
    started = time.perf_counter()
    backend.embed(batch)
    return time.perf_counter() - started


def _embed_bisecting(backend: Backend, batch: Batch) -> BatchOutput:
    """Computes a batch; one that does not fit the device's memory is tried once more in two halves."""
    try:
        return backend.embed(batch)
    except OutOfDeviceMemoryError:
        if len(batch.lengths) == 1:
            raise
    logger.warning("out of device memory: trying two halves", extra={"tokens": batch.useful_tokens})
    middle = len(batch.lengths) // 2
    cut = int(batch.lengths[:middle].sum())
    rows = -(-batch.rows // 2)
    halves = (
        Batch(batch.token_ids[:cut], batch.lengths[:middle], batch.bucket, max(rows, middle)),
        Batch(
            batch.token_ids[cut:],
            batch.lengths[middle:],
            batch.bucket,
            max(rows, len(batch.lengths) - middle),
        ),
    )
    outputs = [backend.embed(half) for half in halves]
    return BatchOutput(np.concatenate([one.embeddings for one in outputs]), sum(one.computed_tokens for one in outputs))
