"""A digest of a model's vector space: the same for the same model in any precision and layout, else different.

It is taken of the model as its files hold it, in float32 and padded, before the serving precision and layout are
chosen. A digest of what is *served* cannot be both tolerant and sharp: however coarse the rounding, some value lies
within bfloat16's noise of a step. Between machines only float32's own noise is left (about 1e-6), and that, too, can
carry a value over a step. So there are two digests, with steps half a step apart: a value near a step of one is far
from those of the other, and two models are the same where either digest is.
"""

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
# 28 similarities, noise 1e-6 to either side of a step: about one model in a thousand has one close enough to flip one
# digest, one in a million both.
_STEP = 0.05
_HEX_DIGITS = 8


def digest(embeddings: NDArray[np.float32]) -> str:
    """Two digests of the probes' pairwise similarities, rounded; a different model of the same width has others.

    Args:
        embeddings: float32 (probes, dimension), not normalized.

    Returns:
        8 hexadecimal digits, a dash, and 8 more.
    """
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarities = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    width = str(embeddings.shape[1]).encode()
    rounded = (np.rint(similarities / _STEP + shift).astype(np.int8) for shift in (0, 0.5))
    return "-".join(hashlib.sha256(width + one.tobytes()).hexdigest()[:_HEX_DIGITS] for one in rounded)
