"""A digest of a model's vector space: the same for the same model in any precision and layout, else different."""

import hashlib

import numpy as np
from numpy.typing import NDArray

PROBE_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Wireless headphones with active noise cancelling and forty hours of battery life.",
    "How do I return an item that I bought two weeks ago?",
    "7",
    "La lune éclaire la mer calme d'une lumière d'argent.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "red cotton t-shirt, size M",
    "The central bank raised its key interest rate by a quarter of a point on Thursday.",
)
# Similarities are rounded to steps so coarse that bfloat16 (differences up to about 0.004) rarely crosses
# one, and the largest part of a digest's bits must not hang on a single one: see `digest`.
_STEP = 0.1


def digest(embeddings: NDArray[np.float32]) -> str:
    """Digest of the probes' pairwise similarities and their order.

    A different model of the same width has other similarities; the same model in another precision has them
    but for noise. The *ranking* of clearly different similarities is what is digested: pairs closer than the
    noise count as equal, by rounding.

    Args:
        embeddings: float32 (probes, dimension), not normalized.

    Returns:
        16 hexadecimal digits.
    """
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarities = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    rounded = np.rint(similarities / _STEP).astype(np.int8)
    width = str(embeddings.shape[1]).encode()
    return hashlib.sha256(width + rounded.tobytes()).hexdigest()[:16]
