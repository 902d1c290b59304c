"""One batch for the device, and what becomes of it: whatever goes wrong fails this batch alone."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_server.assembly import keep_rows
from sluice_server.backend import Backend, Batch, BatchOutput, DeviceLostError, OutOfDeviceMemoryError
from sluice_server.errors import BatchFailedError

logger = logging.getLogger(__name__)

Computed = tuple[BatchOutput, int | None]
"""The output, and the size that did not fit the device's memory, or None."""


@dataclass(frozen=True, slots=True)
class Job:
    """One batch for the device.

    Attributes:
        number: By which its result is known.
        batch: What to compute.
        left_out: At this time, on the server's clock: bool (rows,), the rows that nobody waits for any more; None where
            somebody waits for each.
    """

    number: int
    batch: Batch
    left_out: Callable[[float], NDArray[np.bool_] | None]


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
        lost: Why the device will compute nothing any more; None where it will.
    """

    output: BatchOutput | None
    error: BatchFailedError | None
    started_at: float
    busy_seconds: float
    left_out: NDArray[np.bool_] | None = None
    too_large_tokens: int | None = None
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What computing a batch gave; see BatchResult."""

    output: BatchOutput | None
    error: BatchFailedError | None = None
    too_large_tokens: int | None = None
    lost: str | None = None

    def result(self, started_at: float, busy_seconds: float, left_out: NDArray[np.bool_] | None) -> BatchResult:
        """With the time that it took, and the rows that nobody waited for."""
        return BatchResult(
            self.output, self.error, started_at, busy_seconds, left_out, self.too_large_tokens, self.lost
        )


def run_job(backend: Backend, job: Job) -> BatchResult:
    """Computes one batch; whatever goes wrong fails this batch, and the thread lives on."""
    started_at, started = time.monotonic(), time.perf_counter()
    left_out: NDArray[np.bool_] | None = None

    def compute() -> Computed:
        nonlocal left_out
        left_out = job.left_out(started_at)
        kept = choose(job.batch, left_out)
        return spread(None if kept is None else embed_bisecting(backend, kept), left_out, backend.info.dimension)

    attempted = attempt(backend, job.batch, compute)
    return attempted.result(started_at, time.perf_counter() - started, left_out)


class _RowTooLargeError(OutOfDeviceMemoryError):
    """The batch was one row, which has no halves."""


def attempt(backend: Backend, batch: Batch, compute: Callable[[], Computed]) -> Attempt:
    """Computes a batch, or says what went wrong."""
    try:
        output, too_large = compute()
    except OutOfDeviceMemoryError as error:
        words = "half a batch, or a single row, does not fit the device"
        logger.exception(words, extra={"tokens": batch.useful_tokens})
        # A row cannot be halved: that one is too large says nothing of batches of others.
        too_large = None if isinstance(error, _RowTooLargeError) else size(backend, batch) // 2
        return Attempt(None, BatchFailedError("the device is out of memory"), too_large)
    except Exception as cause:
        logger.exception("a batch failed", extra={"tokens": batch.useful_tokens, "bucket": batch.bucket})
        lost = str(cause) if isinstance(cause, DeviceLostError) else None
        return Attempt(None, BatchFailedError(f"the device failed on a batch: {type(cause).__name__}"), None, lost)
    return Attempt(output, None, too_large)


def choose(batch: Batch, left_out: NDArray[np.bool_] | None) -> Batch | None:
    """The batch without the rows that nobody waits for; None where nobody waits at all."""
    if left_out is None:
        return batch
    return None if left_out.all() else keep_rows(batch, ~left_out)


def spread(computed: Computed | None, left_out: NDArray[np.bool_] | None, dimension: int) -> Computed:
    """The computed rows in their places; zeros stand for the others.

    Args:
        computed: Of the rows that were not left out; None where there are none.
        left_out: bool (rows,); None where no row was.
        dimension: Of an embedding.
    """
    if left_out is None:
        assert computed is not None, "every row was computed"
        return computed
    embeddings = np.zeros((len(left_out), dimension), dtype=np.float32)
    if computed is None:
        return BatchOutput(embeddings, 0), None
    output, too_large = computed
    embeddings[~left_out] = output.embeddings
    return BatchOutput(embeddings, output.computed_tokens), too_large


def embed_bisecting(backend: Backend, batch: Batch) -> Computed:
    """Computes a batch; one that does not fit the device's memory is tried once more in two halves.

    Raises:
        OutOfDeviceMemoryError: A half did not fit, or the batch is one row.
    """
    try:
        return backend.embed(batch), None
    except OutOfDeviceMemoryError:
        return embed_halves(backend, batch)


def embed_halves(backend: Backend, batch: Batch) -> Computed:
    """Computes a batch that did not fit the device's memory in two halves, one after the other.

    Raises:
        OutOfDeviceMemoryError: A half did not fit, or the batch is one row.
    """
    if len(batch.lengths) == 1:
        raise _RowTooLargeError("a single row does not fit the device")
    outputs = [backend.embed(half) for half in _halves(batch)]
    embeddings = np.concatenate([one.embeddings for one in outputs])
    return BatchOutput(embeddings, sum(one.computed_tokens for one in outputs)), size(backend, batch)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    middle = len(batch.lengths) // 2
    cut = int(batch.lengths[:middle].sum())
    rows = -(-batch.rows // 2)
    after = len(batch.lengths) - middle
    return (
        Batch(batch.token_ids[:cut], batch.lengths[:middle], batch.bucket, max(rows, middle)),
        Batch(batch.token_ids[cut:], batch.lengths[middle:], batch.bucket, max(rows, after)),
    )


def size(backend: Backend, batch: Batch) -> int:
    """Tokens that the device computes for it, padding included."""
    return batch.rows * batch.bucket if backend.info.layout == "padded" else batch.useful_tokens
