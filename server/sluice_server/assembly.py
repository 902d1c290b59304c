"""From a plan to the arrays that the device computes. Pure numpy, no loop over rows or tokens."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sluice_server.backend import Batch
from sluice_server.requests import BatchPlan, RunSlice


def assemble(plan: BatchPlan, batch_sizes: Sequence[int]) -> Batch:
    """The plan's rows one after the other; the number of rows rounded up to a fixed batch size."""
    parts = [_gather(one) for one in plan.slices]
    ids = parts[0][0] if len(parts) == 1 else np.concatenate([part[0] for part in parts])
    lengths = parts[0][1] if len(parts) == 1 else np.concatenate([part[1] for part in parts])
    return Batch(ids, lengths, max(plan.bucket, int(np.maximum.reduce(lengths))), round_up(len(lengths), batch_sizes))


def keep_rows(batch: Batch, kept: NDArray[np.bool_]) -> Batch:
    """The batch without some of its rows; at least one is kept."""
    ids = batch.token_ids[np.repeat(kept, batch.lengths)]
    return Batch(ids, batch.lengths[kept], batch.bucket, batch.rows)


def round_up(rows: int, batch_sizes: Sequence[int]) -> int:
    """The smallest fixed size that holds so many rows; the rows themselves above the largest."""
    place = bisect_left(batch_sizes, rows)
    return batch_sizes[place] if place < len(batch_sizes) else rows


def _gather(part: RunSlice) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Token ids and lengths of the chosen rows of one request."""
    rows, offsets, indices = part.request.rows, part.request.offsets, part.indices
    lengths = rows.lengths[indices]
    if indices[-1] - indices[0] + 1 == len(indices):
        return rows.token_ids[offsets[indices[0]] : offsets[indices[-1] + 1]], lengths
    ends = np.cumsum(lengths, dtype=np.int64)
    places = np.arange(ends[-1]) + np.repeat(np.asarray(offsets)[indices] - (ends - lengths), lengths)
    return rows.token_ids[places], lengths
