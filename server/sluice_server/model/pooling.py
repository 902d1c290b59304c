"""From token states to one row per input: mean, cls or last, with tokens left out of the mean.

Pooling is a weight for each token, made on the host; the device adds up, in the same way for every kind and batch, and
the host divides.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sluice_server.backend import Batch


@dataclass(frozen=True, slots=True)
class Summed:
    """Rows added up.

    Attributes:
        sums: float32 (n, width), in the batch's order.
        computed_tokens: Positions computed, padding included.
    """

    sums: NDArray[np.float32]
    computed_tokens: int


RowSums = Callable[[Batch, NDArray[np.float32]], Summed]
"""Computes a packed batch and adds up each row's token states, each times its weight: float32 (total,)."""


class Pooling:
    """How a row is pooled.

    Args:
        kind: mean, cls or last.
        excluded_ids: Token ids left out of the mean; a row of nothing else is pooled whole.
        vocab_size: Of the model.
    """

    def __init__(self, kind: str, excluded_ids: Iterable[int], vocab_size: int) -> None:
        self.kind = kind
        excluded = list(excluded_ids)
        # One look-up per token, whatever the number of excluded ones; none where there are none.
        self._counts = np.ones(vocab_size, dtype=np.float32) if excluded else None
        if self._counts is not None:
            self._counts[excluded] = 0.0

    def weights(
        self, ids: NDArray[np.integer], lengths: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Which tokens add to their row, and how many do: the weighted sum over a row divided by it is the row pooled.

        Divided afterwards, as a sum of zeros and ones is exact.

        Args:
            ids: (total,), rows one behind the other.
            lengths: (n,), each at least 1.

        Returns:
            float32 (total,), 1 or 0, and float32 (n, 1), the sum of each row's.
        """
        if self.kind != "mean":
            ends = np.cumsum(lengths)
            weights = np.zeros(len(ids), dtype=np.float32)
            weights[ends - lengths if self.kind == "cls" else ends - 1] = 1.0
            return weights, np.ones((len(lengths), 1), dtype=np.float32)
        if self._counts is None:
            return np.ones(len(ids), dtype=np.float32), lengths.astype(np.float32)[:, None]
        kept: NDArray[np.float32] = self._counts[ids]
        totals: NDArray[np.float32] = np.add.reduceat(kept, np.cumsum(lengths) - lengths)
        whole = totals == 0
        if whole.any():
            kept[np.repeat(whole, lengths)] = 1.0
            totals[whole] = lengths[whole]
        return kept, totals[:, None]


def padded_sums(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Adds up padded rows.

    Args:
        states: (rows, length, width).
        weights: float32 (rows, length) on the same device; 0 for padding.

    Returns:
        float32 (rows, width).
    """
    return torch.einsum("rlw,rl->rw", states.float(), weights)


def packed_sums(
    states: torch.Tensor, weights: torch.Tensor, cu_seqlens: torch.Tensor, places: torch.Tensor | None = None
) -> torch.Tensor:
    """Adds up packed rows, each in one order, unlike with atomic additions: equal batches give equal bytes.

    One call over all rows: several operations of many threads each wait for a core that others may have.

    Args:
        states: (tokens, width).
        weights: float32 (tokens,) on the same device.
        cu_seqlens: (rows + 1,) on the same device; rows may have no tokens.
        places: 0, 1, … tokens - 1 on the same device in the dtype of cu_seqlens, where they are at hand.

    Returns:
        float32 (rows, width); zeros where a row has no tokens.
    """
    return torch.nn.functional.embedding_bag(
        torch.arange(len(states), dtype=cu_seqlens.dtype, device=states.device) if places is None else places,
        states.float(),
        cu_seqlens,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )


def excluded_token_ids(vocabulary: Mapping[str, int], tokens: Iterable[str], special_ids: Iterable[int]) -> set[int]:
    """Ids of the tokens that the vocabulary knows; one that it does not know is never added."""
    return {vocabulary[token] for token in tokens if token in vocabulary} | set(special_ids)
