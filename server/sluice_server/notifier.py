"""Results to requests: rows to their places, futures done."""

import numpy as np
from numpy.typing import NDArray

from sluice_server import postprocess
from sluice_server.errors import SluiceError
from sluice_server.requests import BatchPlan, Computed, PendingRequest, RunSlice


def deliver(plan: BatchPlan, embeddings: NDArray[np.float32], *, started_at: float, busy_seconds: float) -> None:
    """Writes a batch's rows into their requests' results; completes the requests that are whole.

    Args:
        plan: Whose rows, in the batch's order.
        embeddings: float32 (rows, dimension).
        started_at: When the device began.
        busy_seconds: How long it took.
    """
    # A request may have rows of several buckets in one batch, and lived through it once.
    for request in {part.request for part in plan.slices}:
        request.compute_seconds += busy_seconds
    # Lengths are made one for the batch: for each request by itself it took several times as long.
    batch = Computed(embeddings, postprocess.unit(embeddings))
    row = 0
    for part in plan.slices:
        request, count = part.request, len(part.indices)
        _put(request, part, batch.rows(row, row + count))
        row += count
        request.unfinished_rows -= count
        if request.first_started_at is None:
            request.first_started_at = started_at
        if request.unfinished_rows == 0 and not request.future.done():
            request.future.set_result(None)


def _put(request: PendingRequest, part: RunSlice, rows: Computed) -> None:
    whole = len(request.rows.lengths)
    if len(part.indices) == whole:
        request.result = rows
        return
    if request.result is None:
        request.result = Computed.empty_like(rows, whole)
    request.result.put(part.indices, rows)


def fail_rows(plan: BatchPlan, rows: NDArray[np.bool_], error: SluiceError) -> None:
    """Completes the requests of these rows with an error."""
    row = 0
    for part in plan.slices:
        if rows[row : row + len(part.indices)].any():
            fail(part.request, error)
        row += len(part.indices)


def fail(request: PendingRequest, error: SluiceError) -> None:
    """Completes a request with an error, once."""
    if not request.future.done():
        request.future.set_exception(error)
