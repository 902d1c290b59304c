"""Which batches run before the gate opens: enough to compile, to allocate, and to learn what tokens cost. Pure."""

from collections.abc import Sequence

import numpy as np

from sluice_server.assembly import round_up
from sluice_server.backend import Batch, ModelInfo

# The larger batch of each bucket: the steady cost of tokens shows, and warm-up stays short.
_LARGE_BATCH_TOKENS = 1024


def warm_up_batches(
    info: ModelInfo, boundaries: Sequence[int], batch_sizes: Sequence[int], seed: int = 0
) -> list[Batch]:
    """For each bucket that the model's positions allow, one row and then about a thousand tokens.

    Args:
        info: Of the loaded model.
        boundaries: Of the buckets.
        batch_sizes: Fixed ones, for the padded layout.
        seed: For the token ids.
    """
    dice = np.random.default_rng(seed)
    batches = []
    for boundary in boundaries:
        length = min(boundary, info.max_position_tokens)
        for rows in sorted({1, max(1, _LARGE_BATCH_TOKENS // length)}):
            ids = dice.integers(0, info.vocab_size, rows * length, dtype=np.int32)
            lengths = np.full(rows, length, dtype=np.int32)
            batches.append(Batch(ids, lengths, boundary, round_up(rows, batch_sizes)))
        if length < boundary:
            break
    return batches
