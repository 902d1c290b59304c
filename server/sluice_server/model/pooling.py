"""From token states to one row per input: mean, cls or last, with tokens left out of the mean."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray


class Pooling:
    """How a row is pooled.

    Args:
        kind: mean, cls or last.
        excluded_ids: Token ids left out of the mean; a row of nothing else is pooled whole.
        vocab_size: Of the model.
    """

    def __init__(self, kind: str, excluded_ids: Iterable[int], vocab_size: int) -> None:
        self.kind = kind
        # One look-up per token, whatever the number of excluded ones.
        self._counts = torch.ones(vocab_size, dtype=torch.float32)
        self._counts[list(excluded_ids)] = 0.0

    @property
    def counts(self) -> NDArray[np.float32]:
        """float32 (vocab_size,), a copy on the host: 0 for ids left out of the mean, else 1."""
        return self._counts.cpu().numpy().copy()

    def to(self, device: str) -> None:
        """Moves the table beside the states."""
        self._counts = self._counts.to(device)

    def rectangle(self, states: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Pools padded rows.

        Args:
            states: (rows, length, width).
            ids: int64 (rows, length).
            lengths: int64 (rows,); positions from there on are padding.

        Returns:
            float32 (rows, width).
        """
        if self.kind == "cls":
            return states[:, 0].float()
        if self.kind == "last":
            rows = torch.arange(len(lengths), device=states.device)
            return states[rows, lengths - 1].float()
        real = torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]
        counts = self._counts[ids] * real
        counts = torch.where(counts.sum(1, keepdim=True) > 0, counts, real.float())
        return torch.einsum("rlw,rl->rw", states.float(), counts) / counts.sum(1, keepdim=True)

    def packed(self, states: torch.Tensor, ids: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        """Pools packed rows.

        Args:
            states: (tokens, width).
            ids: int64 (tokens,).
            cu_seqlens: int64 (rows + 1,).

        Returns:
            float32 (rows, width).
        """
        if self.kind == "cls":
            return states[cu_seqlens[:-1]].float()
        if self.kind == "last":
            return states[cu_seqlens[1:] - 1].float()
        counts = self._counts[ids]
        totals = _sums(counts, cu_seqlens)
        if bool((totals == 0).any()):
            lengths = cu_seqlens.diff()
            counts = torch.where(torch.repeat_interleave(totals, lengths) > 0, counts, 1.0)
            totals = torch.where(totals > 0, totals, lengths.float())
        # One call over all rows: several operations of many threads each wait for a core that others may have.
        sums = torch.nn.functional.embedding_bag(
            torch.arange(len(ids), device=ids.device),
            states.float(),
            cu_seqlens[:-1],
            mode="sum",
            per_sample_weights=counts,
        )
        return sums / totals[:, None]


def _sums(counts: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """Of each row; exact, as zeros and ones are added."""
    up_to = torch.cumsum(counts, 0)[cu_seqlens[1:] - 1]
    return torch.diff(up_to, prepend=up_to.new_zeros(1))


def excluded_token_ids(vocabulary: Mapping[str, int], tokens: Iterable[str], special_ids: Iterable[int]) -> set[int]:
    """Ids of the tokens that the vocabulary knows; one that it does not know is never added."""
    return {vocabulary[token] for token in tokens if token in vocabulary} | set(special_ids)
