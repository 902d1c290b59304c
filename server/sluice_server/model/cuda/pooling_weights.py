"""Pooling as a weight for each token, so that a graph pools every batch with the same sum. Pure numpy."""

import numpy as np
from numpy.typing import NDArray


def token_weights(
    kind: str, counts: NDArray[np.float32], ids: NDArray[np.int32], lengths: NDArray[np.int32]
) -> NDArray[np.float32]:
    """What each token adds to its row: the weighted sum over a row is the row pooled.

    Args:
        kind: mean, cls or last.
        counts: float32 (vocab_size,): 0 for the ids left out of the mean, else 1; see Pooling.
        ids: int32 (total,).
        lengths: int32 (n,), each at least 1.

    Returns:
        float32 (total,); each row's sum to 1. A row of nothing but tokens that are left out is pooled whole.
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    if kind != "mean":
        weights = np.zeros(len(ids), dtype=np.float32)
        weights[starts if kind == "cls" else ends - 1] = 1.0
        return weights
    kept = counts[ids]
    totals: NDArray[np.float32] = np.add.reduceat(kept, starts)
    whole = totals == 0
    if whole.any():
        kept[np.repeat(whole, lengths)] = 1.0
        totals[whole] = lengths[whole]
    weights = np.repeat(totals, lengths)
    np.divide(kept, weights, out=weights)
    return weights
