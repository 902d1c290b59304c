"""Which batches run before the gate opens: enough to compile, to allocate, and to learn what tokens cost. Pure."""

from collections.abc import Sequence

import numpy as np

from sluice_server.assembly import round_up
from sluice_server.backend import Batch, ModelInfo

# The larger batch of each bucket: the steady cost of tokens shows, and warm-up stays short.
_LARGE_BATCH_TOKENS = 1024


def warm_up_batches(
    info: ModelInfo, boundaries: Sequence[int], batch_sizes: Sequence[int], max_tokens: int, seed: int = 0
) -> list[Batch]:
    """For each bucket that the model's positions allow, a small batch and then one of about a thousand tokens.

    Args:
        info: Of the loaded model.
        boundaries: Of the buckets.
        batch_sizes: Fixed ones, for the padded layout.
        max_tokens: Of one batch in traffic.
        seed: For the token ids.
    """
    dice = np.random.default_rng(seed)
    batches = []
    for boundary in boundaries:
        length = min(boundary, info.max_position_tokens)
        for rows in _row_counts(info.layout, length, batch_sizes, max_tokens):
            ids = dice.integers(0, info.vocab_size, rows * length, dtype=np.int32)
            lengths = np.full(rows, length, dtype=np.int32)
            batches.append(Batch(ids, lengths, boundary, round_up(rows, batch_sizes)))
        if length < boundary:
            break
    return batches


def _row_counts(layout: str, length: int, batch_sizes: Sequence[int], max_tokens: int) -> list[int]:
    """Of the small batch and of the large one.

    The padded layout's are two rectangles without dummies: where both fill up the same one, or dummies take most of
    the small one's time, tokens look as if they cost nothing.
    """
    many = max(1, min(_LARGE_BATCH_TOKENS, max_tokens) // length)
    if layout == "packed":
        return sorted({1, many})
    least = batch_sizes[0]
    larger = min(round_up(max(many, least + 1), batch_sizes), batch_sizes[-1])
    return sorted({least, larger}) if larger * length <= max_tokens else [least]
