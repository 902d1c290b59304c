"""From pooled rows to what the caller asked for: dimensions, length, type. Pure numpy."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

OutputDtype = Literal["float32", "float16", "int8"]


def finish(
    embeddings: NDArray[np.float32], *, dimensions: int | None, normalize: bool, dtype: OutputDtype
) -> NDArray[np.generic]:
    """Cuts, then normalizes, then converts.

    Args:
        embeddings: float32 (n, dimension), as pooled.
        dimensions: Keep the first so many; None keeps all.
        normalize: Rows of unit length; a row of zeros stays as it is.
        dtype: int8 is round(127 x) of the normalized row, whatever `normalize` says.

    Returns:
        (n, dimensions), contiguous, little-endian.
    """
    rows = embeddings[:, :dimensions] if dimensions else embeddings
    if normalize or dtype == "int8":
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.maximum(norms, np.finfo(np.float32).tiny)
    if dtype == "int8":
        return np.ascontiguousarray(np.rint(rows * 127), dtype="i1")
    return np.ascontiguousarray(rows, dtype="<f2" if dtype == "float16" else "<f4")
