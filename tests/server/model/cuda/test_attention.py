"""The operator for a GPU gives what packed attention gives."""

import pytest
import torch
from sluice_server.model.attention import packed_attention
from sluice_server.model.cuda.attention import row_attention

HEADS, WIDTH = 4, 8
LENGTHS = (5, 1, 6)
TOKENS = sum(LENGTHS)


def states(seed: int, heads: int = HEADS) -> torch.Tensor:
    return torch.randn(heads, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def row_bounds() -> tuple[torch.Tensor, torch.Tensor]:
    """Where rows lie, as each of the two operators is told."""
    lengths = torch.tensor(LENGTHS)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    return torch.stack([offsets[:-1].repeat_interleave(lengths), offsets[1:].repeat_interleave(lengths)]), offsets


@pytest.mark.parametrize("window", [0, 3])
def test_it_attends_within_each_row(window: int) -> None:
    query, key, value = states(0), states(1, 2), states(2, 2)
    bounds, offsets = row_bounds()
    got = row_attention(query, key, value, bounds, 0.3, window)
    torch.testing.assert_close(got, packed_attention(query, key, value, offsets, 0.3, window))


def test_the_compiler_sees_the_true_shape() -> None:
    torch.library.opcheck(row_attention, (states(0), states(1), states(2), row_bounds()[0], 0.3, 0))
