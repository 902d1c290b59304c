"""Shapes that packed batches are filled up to on a GPU, one graph for each. Pure.

A graph repeats the same kernels on the same memory, so the number of tokens and the number of rows are fixed; only
where the rows lie differs from batch to batch.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_server.backend import Batch

# Below about a thousand tokens a forward takes as long as its launches, so few budgets do.
_SMALL_BUDGETS = (64, 128, 256, 512, 1024)
# Above that a batch is filled up by a sixth of it at most.
_LARGE_BUDGETS = 24
# Matrix multiplications work in tiles of so many tokens.
_TILE = 128
# A row that fills up: short, as attention within a row grows with its square.
_FILLER_TOKENS = 64


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What a batch is filled up to.

    Attributes:
        tokens: Computed, whatever the batch has: rows of padding tokens fill it up.
        rows: Filling ones included; those that are left over have no tokens.
    """

    tokens: int
    rows: int

    def holds(self, tokens: int, rows: int) -> bool:
        """Whether a batch can be filled up to it."""
        return tokens <= self.tokens and rows + _filler_rows(self.tokens - tokens) <= self.rows


def shapes(most_tokens: int, most_rows: int, positions: int) -> tuple[Shape, ...]:
    """All shapes of a server, from the smallest.

    Args:
        most_tokens: Of one batch; a single row of `positions` tokens is held, too.
        most_rows: Of one batch.
        positions: The longest row.
    """
    made = []
    least = 1
    for budget in _budgets(max(most_tokens, positions)):
        # As many as the smallest batch that comes here needs to be filled up.
        made.append(Shape(budget, min(most_rows, budget) + _filler_rows(budget - least)))
        least = budget + 1
    return tuple(made)


def fit(known: Sequence[Shape], batch: Batch) -> Shape | None:
    """The smallest shape that holds a batch; None where none does.

    Args:
        known: From the smallest.
        batch: To compute.
    """
    return next((one for one in known if one.holds(batch.useful_tokens, len(batch.lengths))), None)


def exactly(batch: Batch) -> Shape:
    """The shape of a batch that is not filled up."""
    return Shape(batch.useful_tokens, len(batch.lengths))


def offsets(shape: Shape, lengths: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where rows start, and the end of the last: the batch's, then those that fill up, then rows without tokens.

    Args:
        shape: That holds the batch.
        lengths: int32 (n,), of the batch's rows.

    Returns:
        int32 (shape.rows + 1,), ascending from 0 to shape.tokens.
    """
    places = np.full(shape.rows + 1, shape.tokens, dtype=np.int32)
    places[0] = 0
    rows = len(lengths)
    np.cumsum(lengths, out=places[1 : rows + 1])
    tokens = int(places[rows])
    fillers = _filler_rows(shape.tokens - tokens)
    places[rows + 1 : rows + fillers] = tokens + _FILLER_TOKENS * np.arange(1, fillers, dtype=np.int32)
    return places


def full_batch(tokens: int, length: int, vocab_size: int, boundaries: Sequence[int], seed: int = 0) -> Batch:
    """A batch of so many tokens in rows of one length, for the warm-up; the last row is what remains.

    Args:
        tokens: Of the batch.
        length: Of its rows.
        vocab_size: Of the model.
        boundaries: Of the buckets, ascending; the cost of the batch is kept under one of them.
        seed: For the token ids.
    """
    lengths = np.diff(np.append(np.arange(0, tokens, length), tokens)).astype(np.int32)
    ids = np.random.default_rng(seed).integers(0, vocab_size, tokens, dtype=np.int32)
    bucket = boundaries[min(bisect_left(boundaries, int(lengths[0])), len(boundaries) - 1)]
    return Batch(ids, lengths, bucket, len(lengths))


def _filler_rows(tokens: int) -> int:
    return -(-tokens // _FILLER_TOKENS)


def _budgets(most: int) -> list[int]:
    """About thirty: small powers of two, then steps of one ratio, in whole tiles, up to the most."""
    small = [budget for budget in _SMALL_BUDGETS if budget < most]
    least = small[-1] if small else most
    large = (least * (most / least) ** (step / _LARGE_BUDGETS) for step in range(1, _LARGE_BUDGETS))
    tiled = [-(-round(budget) // _TILE) * _TILE for budget in large] if most > _SMALL_BUDGETS[-1] else []
    return sorted({*small, *(budget for budget in tiled if budget < most), most})
