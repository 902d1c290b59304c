"""A forward of packed rows, as torch computes it on a CPU, and the sums of its rows."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sluice_server.backend import Batch
from sluice_server.model import grid
from sluice_server.model.pooling import RowSums, Summed, packed_sums

Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""ids, positions and cu_seqlens, all int64 and on the CPU, to token states (tokens, width)."""


def eager(model: PreTrainedModel) -> Forward:
    """The loaded model as a packed forward; its attention is attention.py's."""

    def forward(ids: torch.Tensor, positions: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = model(
            input_ids=ids[None], position_ids=positions[None], cu_seq_lens_q=cu_seqlens
        ).last_hidden_state
        return states[0]

    return forward


def row_sums(forward: Forward, *, pad_id: int, first_position: int) -> RowSums:
    """A forward and the sums of its rows.

    It is given them sorted by length, so that attention computes few rectangles, and in a size of the grid, as each
    size has code and memory of its own.

    Args:
        forward: Of the packed layout.
        pad_id: Of the dummy row that fills the grid.
        first_position: Of a row: padding_idx + 1 in RoBERTa's family, else 0.
    """

    @torch.inference_mode()
    def sums(batch: Batch, weights: NDArray[np.float32]) -> Summed:
        order = np.argsort(batch.lengths, kind="stable")
        places, lengths = _places(batch.lengths.astype(np.int64), order)
        ids, weights = batch.token_ids[places].astype(np.int64), weights[places]
        if filler := grid.round_up(ids.size) - ids.size:
            ids, lengths = np.append(ids, np.full(filler, pad_id)), np.append(lengths, filler)
            weights = np.append(weights, np.zeros(filler, dtype=np.float32))
        ends = np.cumsum(lengths)
        positions = np.arange(ids.size) - np.repeat(ends - lengths, lengths) + first_position
        cu_seqlens = torch.from_numpy(np.concatenate(([0], ends)))
        states = forward(torch.from_numpy(ids), torch.from_numpy(positions), cu_seqlens)
        summed = packed_sums(states, torch.from_numpy(weights), cu_seqlens).numpy()[: len(order)]
        rows = np.empty_like(summed)
        rows[order] = summed
        return Summed(rows, ids.size)

    return sums


def _places(lengths: NDArray[np.int64], order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each token comes from when rows go in another order, and the lengths in that order."""
    starts = np.cumsum(lengths) - lengths
    sorted_lengths = lengths[order]
    sorted_starts = np.cumsum(sorted_lengths) - sorted_lengths
    places = np.arange(lengths.sum()) + np.repeat(starts[order] - sorted_starts, sorted_lengths)
    return places, sorted_lengths
