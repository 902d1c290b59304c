"""One batch's input as one block of int32, so that one copy takes it to the device. Vectorised numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_server.backend import Batch
from sluice_server.model.cuda import shapes
from sluice_server.model.cuda.shapes import Shape


@dataclass(frozen=True, slots=True)
class Sections:
    """Where the parts of a batch lie in its block.

    Attributes:
        ids: int32 (tokens,).
        positions: int32 (tokens,), from the model's first position on in each row.
        weights: float32 (tokens,), in the same four bytes; see Pooling.
        bounds: int32 (2, tokens): where each token's row starts and where it ends.
        offsets: int32 (rows + 1,).
    """

    ids: slice
    positions: slice
    weights: slice
    bounds: slice
    offsets: slice

    @property
    def size(self) -> int:
        """Of the block, in int32."""
        return int(self.offsets.stop)


def sections(shape: Shape) -> Sections:
    """The parts one behind the other, without gaps."""
    tokens = shape.tokens
    return Sections(
        slice(0, tokens),
        slice(tokens, 2 * tokens),
        slice(2 * tokens, 3 * tokens),
        slice(3 * tokens, 5 * tokens),
        slice(5 * tokens, 5 * tokens + shape.rows + 1),
    )


def fill(
    block: NDArray[np.int32],
    shape: Shape,
    batch: Batch,
    weights: NDArray[np.float32],
    *,
    pad_id: int,
    first_position: int,
) -> Sections:
    """Writes a batch, filled up to its shape.

    Args:
        block: int32, at least as long as the shape's sections.
        shape: That holds the batch.
        batch: Rows in their own order.
        weights: float32 (batch tokens,); tokens that fill up weigh nothing.
        pad_id: The id that fills up.
        first_position: Of a row.
    """
    parts, used = sections(shape), batch.useful_tokens
    ids, share = block[parts.ids], block[parts.weights].view(np.float32)
    ids[:used], ids[used:] = batch.token_ids, pad_id
    share[:used], share[used:] = weights, 0.0
    places = shapes.offsets(shape, batch.lengths)
    block[parts.offsets] = places
    starts, ends = block[parts.bounds].reshape(2, -1)
    lengths = np.diff(places)
    starts[:], ends[:] = np.repeat(places[:-1], lengths), np.repeat(places[1:], lengths)
    np.subtract(
        np.arange(first_position, first_position + shape.tokens, dtype=np.int32), starts, out=block[parts.positions]
    )
    return parts
