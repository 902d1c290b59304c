"""The device worker: one thread that alone owns the model and the device."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_server.assembly import keep_rows
from sluice_server.backend import Backend, Batch, BatchOutput, OutOfDeviceMemoryError
from sluice_server.cost import Measurement
from sluice_server.errors import BatchFailedError
from sluice_server.flight import MAX_PENDING
from sluice_server.threads import yield_cores

logger = logging.getLogger(__name__)

_MEASURED_RUNS = 3
# A sixth of the weight of other threads.
_NICENESS = 8


@dataclass(frozen=True, slots=True)
class Job:
    """One batch for the device.

    Attributes:
        number: By which its result is known.
        batch: What to compute.
        wanted: At this time, on the server's clock: bool (rows,), whose rows somebody still waits for.
    """

    number: int
    batch: Batch
    wanted: Callable[[float], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one batch.

    Attributes:
        output: Rows in the batch's order, zeros where one was left out; None where the batch failed.
        error: None where it did not.
        started_at: On the server's clock.
        busy_seconds: Device time.
        left_out: bool (rows,): nobody waited for them when the device began; None where all were computed.
        too_large_tokens: This many, padding included, did not fit the device's memory; None where all went well.
    """

    output: BatchOutput | None
    error: BatchFailedError | None
    started_at: float
    busy_seconds: float
    left_out: NDArray[np.bool_] | None = None
    too_large_tokens: int | None = None


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
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=MAX_PENDING + 1)
        self._thread = threading.Thread(target=self._run, name="device-worker", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hands over a batch; the caller never has more than MAX_PENDING under way.

        Raises:
            queue.Full: It has: a mistake of ours.
        """
        self._jobs.put_nowait(job)

    def stop(self, within_seconds: float) -> None:
        """Ends the thread after the batches that it holds."""
        if self._thread.is_alive():
            self._jobs.put(None, timeout=within_seconds)
            self._thread.join(within_seconds)

    def _run(self) -> None:
        # On a CPU the model shares its cores with the event loop, which must not wait: to refuse is its work, too.
        yield_cores(_NICENESS)
        try:
            backend = self._load()
            timings = self._warm_up(backend)
            self._callbacks.on_ready(backend, backend.fingerprint(), timings)
        except Exception as error:
            logger.exception("the model could not be brought up")
            self._callbacks.on_failure(str(error) or type(error).__name__)
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
            backend.embed(batch)
            seconds = min(_timed(backend, batch) for _ in range(_MEASURED_RUNS))
            timings.append(Measurement(batch.bucket, batch.useful_tokens, seconds))
        return timings


def _timed(backend: Backend, batch: Batch) -> float:
    started = time.perf_counter()
    backend.embed(batch)
    return time.perf_counter() - started


def run_job(backend: Backend, job: Job) -> BatchResult:
    """One batch; whatever goes wrong fails this batch, and the thread lives on."""
    started_at, started = time.monotonic(), time.perf_counter()
    output, error, too_large, left_out = None, None, None, None
    try:
        wanted = job.wanted(started_at)
        if not wanted.all():
            left_out = ~wanted
        output, too_large = _embed_wanted(backend, job.batch, wanted)
    except OutOfDeviceMemoryError:
        logger.exception("half a batch does not fit the device either", extra={"tokens": job.batch.useful_tokens})
        too_large = _size(backend, job.batch) // 2
        error = BatchFailedError("the device is out of memory")
    except Exception as cause:
        logger.exception("a batch failed", extra={"tokens": job.batch.useful_tokens, "bucket": job.batch.bucket})
        error = BatchFailedError(f"the device failed on a batch: {type(cause).__name__}")
    return BatchResult(output, error, started_at, time.perf_counter() - started, left_out, too_large)


def _embed_wanted(backend: Backend, batch: Batch, wanted: NDArray[np.bool_]) -> tuple[BatchOutput, int | None]:
    """Computes the wanted rows only; zeros stand for the others."""
    if wanted.all():
        return _embed_bisecting(backend, batch)
    embeddings = np.zeros((len(batch.lengths), backend.info.dimension), dtype=np.float32)
    if not wanted.any():
        return BatchOutput(embeddings, 0), None
    output, too_large = _embed_bisecting(backend, keep_rows(batch, wanted))
    embeddings[wanted] = output.embeddings
    return BatchOutput(embeddings, output.computed_tokens), too_large


def _embed_bisecting(backend: Backend, batch: Batch) -> tuple[BatchOutput, int | None]:
    """Computes a batch; one that does not fit the device's memory is tried once more in two halves.

    Returns:
        The output, and the size that did not fit, or None.

    Raises:
        OutOfDeviceMemoryError: A half did not fit, or the batch is one row.
    """
    try:
        return backend.embed(batch), None
    except OutOfDeviceMemoryError:
        if len(batch.lengths) == 1:
            raise
    outputs = [backend.embed(half) for half in _halves(batch)]
    embeddings = np.concatenate([one.embeddings for one in outputs])
    return BatchOutput(embeddings, sum(one.computed_tokens for one in outputs)), _size(backend, batch)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    middle = len(batch.lengths) // 2
    cut = int(batch.lengths[:middle].sum())
    rows = -(-batch.rows // 2)
    after = len(batch.lengths) - middle
    return (
        Batch(batch.token_ids[:cut], batch.lengths[:middle], batch.bucket, max(rows, middle)),
        Batch(batch.token_ids[cut:], batch.lengths[middle:], batch.bucket, max(rows, after)),
    )


def _size(backend: Backend, batch: Batch) -> int:
    """Tokens that the device computes for it, padding included."""
    return batch.rows * batch.bucket if backend.info.layout == "padded" else batch.useful_tokens
