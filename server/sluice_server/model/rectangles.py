"""A ragged batch as padded rectangles of few shapes, for a model whose attention is its own. Pure.

Few, because oneDNN keeps code and memory for each number of tokens that it ever multiplied; see grid.py.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sluice_server.assembly import keep_rows
from sluice_server.backend import Batch

# Two between one power of two and the next, so a product of two is a power of two, or 3 or 9 times one.
_SIZES = np.sort(np.concatenate([1 << np.arange(24), 3 << np.arange(22)]))


def cut(batch: Batch) -> Iterator[tuple[NDArray[np.bool_], Batch]]:
    """Rows of about one length at a time, length and number of them rounded up to one of the sizes.

    Yields:
        Which rows of the batch, bool (n,), and these rows; each row once, the shortest first.
    """
    lengths = round_up(batch.lengths)
    for length in np.unique(lengths):
        kept = lengths == length
        rows = int(round_up(int(np.count_nonzero(kept))))
        yield kept, replace(keep_rows(batch, kept), bucket=int(length), rows=rows)


def round_up(numbers: NDArray[np.integer] | int) -> NDArray[np.int64]:
    """To the next size: by less than half."""
    rounded: NDArray[np.int64] = _SIZES[np.searchsorted(_SIZES, numbers)]
    return rounded
