"""Our attention kernel, run by Triton's interpreter where there is no GPU: what packed attention gives, in float16."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_server.model.attention import packed_attention
from sluice_server.model.cuda import kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def attended(
    lengths: list[int], *, heads: int = 2, groups: int = 1, width: int = 16, window: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernel and what packed attention make of random states in rows of these lengths."""
    dice = torch.Generator().manual_seed(0)
    tokens = sum(lengths)
    query, key, value = (
        torch.randn(tokens, count, width, generator=dice).half().transpose(0, 1)
        for count in (heads, heads // groups, heads // groups)
    )
    offsets = torch.tensor([0, *lengths]).cumsum(0).int()
    counts = torch.tensor(lengths)
    bounds = torch.stack([offsets[:-1].repeat_interleave(counts), offsets[1:].repeat_interleave(counts)])
    on_device = (one.to(DEVICE) for one in (query, key, value, bounds))
    ours = kernel.attend(*on_device, 0.2, window).cpu().float()
    return ours, packed_attention(query.float(), key.float(), value.float(), offsets, 0.2, window)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(1, 6), st.integers(1, 150)), min_size=1, max_size=12),
    window=st.sampled_from([0, 1, 3, 40, 65]),
)
def test_rows_of_all_lengths_see_themselves_alone(lengths: list[int], window: int) -> None:
    ours, expected = attended(lengths, heads=1, window=window)
    torch.testing.assert_close(ours, expected, atol=4e-3, rtol=0)


@pytest.mark.parametrize("width", [8, 16, 32, 48, 64, 128])
def test_heads_of_every_width_that_models_have(width: int) -> None:
    ours, expected = attended([70, 1, 20], width=width)
    torch.testing.assert_close(ours, expected, atol=4e-3, rtol=0)


def test_query_heads_share_those_of_keys() -> None:
    ours, expected = attended([30, 50], heads=4, groups=2)
    torch.testing.assert_close(ours, expected, atol=4e-3, rtol=0)


def test_what_the_neighbours_hold_changes_not_a_bit() -> None:
    lengths, kept = [40, 33, 60], slice(40, 73)
    offsets = torch.tensor([0, *lengths]).cumsum(0).int()
    counts = torch.tensor(lengths)
    bounds = torch.stack([offsets[:-1].repeat_interleave(counts), offsets[1:].repeat_interleave(counts)]).to(DEVICE)
    states = torch.randn(1, 133, 16, generator=torch.Generator().manual_seed(0)).half().to(DEVICE)
    others = 100 * states
    others[:, kept] = states[:, kept]
    ours, theirs = (kernel.attend(one, one, one, bounds, 0.2, 0)[kept] for one in (states, others))
    assert torch.equal(ours, theirs)
