"""Shapes that packed batches are filled up to on a GPU, one graph for each. Pure.

A graph repeats the same kernels on the same memory, so the number of tokens, the number of rows and the length that
attention is launched for are fixed; only the offsets of the rows differ from batch to batch.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_server.backend import Batch

# Row lengths that attention is launched for; up to the model's positions each is four times the one before it.
_CLASSES = (64, 128, 512)
_CLASS_GROWTH = 4
# Below about a thousand tokens a forward takes as long as its launches, so few budgets do.
_SMALL_BUDGETS = (64, 128, 256, 512, 1024)
_LARGE_BUDGETS = 11
# Matrix multiplications work in tiles of so many tokens.
_TILE = 128


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """What a batch is filled up to.

    Attributes:
        tokens: Computed, whatever the batch has: rows of padding tokens, none longer than `longest`, fill it up.
        longest: No row is longer.
        rows: Filling ones included; those that are left over have no tokens.
    """

    tokens: int
    longest: int
    rows: int

    def filler_rows(self, tokens: int) -> int:
        """Rows that fill up a batch of so many tokens."""
        return -(-(self.tokens - tokens) // self.longest)

    def holds(self, tokens: int, rows: int, longest: int) -> bool:
        """Whether a batch can be filled up to it."""
        return tokens <= self.tokens and longest <= self.longest and rows + self.filler_rows(tokens) <= self.rows


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
        for longest in _lengths(min(positions, budget)):
            # Fewer rows of this length than may come make no batch of this budget.
            if most_rows * longest >= least:
                # As many as the smallest batch that comes here needs to be filled up.
                fillers = -(-(budget - least) // longest)
                made.append(Shape(budget, longest, min(most_rows, budget) + fillers))
        least = budget + 1
    return tuple(made)


def fit(known: Sequence[Shape], batch: Batch) -> Shape | None:
    """The smallest shape that holds a batch; None where none does.

    Args:
        known: From the smallest.
        batch: To compute.
    """
    longest = int(batch.lengths.max())
    return next((one for one in known if one.holds(batch.useful_tokens, len(batch.lengths), longest)), None)


def exactly(batch: Batch) -> Shape:
    """The shape of a batch that is not filled up."""
    return Shape(batch.useful_tokens, int(batch.lengths.max()), len(batch.lengths))


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
    fillers = shape.filler_rows(tokens)
    places[rows + 1 : rows + fillers] = tokens + shape.longest * np.arange(1, fillers, dtype=np.int32)
    return places


def full_batch(shape: Shape, vocab_size: int, boundaries: Sequence[int], seed: int = 0) -> Batch:
    """A batch that fills a shape with rows as long as it takes, for the warm-up.

    Args:
        shape: To fill.
        vocab_size: Of the model.
        boundaries: Of the buckets, ascending; the cost of the batch is kept under one of them.
        seed: For the token ids.
    """
    lengths = np.diff(np.append(np.arange(0, shape.tokens, shape.longest), shape.tokens)).astype(np.int32)
    ids = np.random.default_rng(seed).integers(0, vocab_size, shape.tokens, dtype=np.int32)
    bucket = boundaries[min(bisect_left(boundaries, shape.longest), len(boundaries) - 1)]
    return Batch(ids, lengths, bucket, len(lengths))


def _budgets(most: int) -> list[int]:
    """About sixteen: small powers of two, then steps of one ratio, in whole tiles, up to the most."""
    small = [budget for budget in _SMALL_BUDGETS if budget < most]
    least = small[-1] if small else most
    large = (least * (most / least) ** (step / _LARGE_BUDGETS) for step in range(1, _LARGE_BUDGETS))
    tiled = [-(-round(budget) // _TILE) * _TILE for budget in large] if most > _SMALL_BUDGETS[-1] else []
    return sorted({*small, *(budget for budget in tiled if budget < most), most})


def _lengths(most: int) -> list[int]:
    """The classes below the longest row that there can be, and that row's own."""
    lengths = list(_CLASSES)
    while lengths[-1] < most:
        lengths.append(lengths[-1] * _CLASS_GROWTH)
    return [*(one for one in lengths if one < most), most]
