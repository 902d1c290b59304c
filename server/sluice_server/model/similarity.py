"""How alike two embeddings of the same rows are."""

import numpy as np
from numpy.typing import NDArray


def lowest_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Of the pairs of rows; NaN where a row is not finite."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / norms).min())
