"""From pooled rows to what the caller asked for: dimensions, length, type. Pure numpy."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sluice_server.requests import Computed

# What a row of zeros is divided by.
_LEAST_NORM = np.float32(np.finfo(np.float32).tiny)
OutputDtype = Literal["float32", "float16", "int8"]


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, dimension): rows of unit length; a row of zeros stays as it is."""
    norms = np.sqrt(np.vecdot(rows, rows))
    in_unit_length: NDArray[np.float32] = rows / np.maximum(norms, _LEAST_NORM)[:, None]
    return in_unit_length


def finish(computed: Computed, *, dimensions: int | None, normalize: bool, dtype: OutputDtype) -> NDArray[np.generic]:
    """Cuts, then normalizes, then converts.

    Args:
        computed: As pooled, and at unit length.
        dimensions: Keep the first so many; None keeps all.
        normalize: Rows of unit length.
        dtype: int8 is round(127 x) of the normalized row, whatever `normalize` says.

    Returns:
        (n, dimensions), contiguous, little-endian.
    """
    in_unit_length = normalize or dtype == "int8"
    if dimensions:
        rows = computed.pooled[:, :dimensions]
        rows = unit(rows) if in_unit_length else rows
    else:
        rows = computed.unit if in_unit_length else computed.pooled
    if dtype == "int8":
        return np.ascontiguousarray(np.rint(rows * 127), dtype="i1")
    return np.ascontiguousarray(rows, dtype="<f2" if dtype == "float16" else "<f4")
