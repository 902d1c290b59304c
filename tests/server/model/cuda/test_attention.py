"""The operator for a GPU gives what packed attention gives; its kernels are asked for the same windows."""

import pytest
import torch
from sluice_server.model.attention import packed_attention
from sluice_server.model.cuda import attention
from sluice_server.model.cuda.attention import varlen_attention

HEADS, WIDTH, TOKENS = 4, 8, 12


def states(seed: int, heads: int = HEADS) -> torch.Tensor:
    return torch.randn(heads, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("window", [0, 3])
def test_rows_without_tokens_change_nothing(window: int) -> None:
    query, key, value = states(0), states(1, 2), states(2, 2)
    with_empty = torch.tensor([0, 0, 5, 5, 12, 12, 12], dtype=torch.int32)
    got = varlen_attention(query, key, value, with_empty, 0.3, window, 7)
    torch.testing.assert_close(got, packed_attention(query, key, value, torch.tensor([0, 5, 12]), 0.3, window))


def test_the_compiler_sees_the_true_shape() -> None:
    offsets = torch.tensor([0, 5, 12], dtype=torch.int32)
    torch.library.opcheck(varlen_attention, (states(0), states(1), states(2), offsets, 0.3, 0, 7))


@pytest.mark.parametrize(("window", "sides"), [(0, (-1, -1)), (1, (0, 0)), (65, (64, 64))])
def test_a_kernels_window_counts_the_last_token_seen(window: int, sides: tuple[int, int]) -> None:
    assert attention.sides(window) == sides


@pytest.mark.parametrize("window", [0, 3])
def test_the_gpus_kernel_is_given_tokens_first_and_its_answer_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    offsets = torch.tensor([0, 5, 12], dtype=torch.int32)
    query, key, value = states(0), states(1, 2), states(2, 2)
    monkeypatch.setattr(attention, "_kernel", lambda: by_rows)
    got = attention.attend_on_gpu(query, key, value, offsets, 0.3, window, 7)
    torch.testing.assert_close(got, packed_attention(query, key, value, offsets, 0.3, window))


def by_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    offsets: torch.Tensor,
    longest: int,
    scale: float,
    window: tuple[int, int],
) -> torch.Tensor:
    """Variable-length attention as the kernels document it: tokens first, both sides of a window included."""
    left, right = (side if side >= 0 else longest for side in window)
    groups = query.shape[1] // key.shape[1]
    out = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        ours, theirs = query[start:end], key[start:end].repeat_interleave(groups, 1)
        scores = torch.einsum("qhd,khd->hqk", ours, theirs) * scale
        apart = torch.arange(end - start)[None] - torch.arange(end - start)[:, None]
        scores = scores.masked_fill((apart < -left) | (apart > right), float("-inf"))
        out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[start:end].repeat_interleave(groups, 1)))
    return torch.cat(out)


@pytest.mark.parametrize("installed", [True, False])
def test_flash_attn_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(
        attention.importlib.util, "find_spec", lambda name: object() if installed and name == "flash_attn" else None
    )
    chosen = attention._kernel.__wrapped__()
    assert chosen is (attention._flash_attn if installed else attention._torch_varlen)


def test_torchs_kernel_is_called_as_this_torch_declares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen

    asked: list[tuple[object, ...]] = []

    def forward(*arguments: object) -> tuple[torch.Tensor, None, None]:
        asked.append(arguments)
        return torch.zeros(TOKENS, HEADS, WIDTH), None, None

    monkeypatch.setattr(varlen.torch.ops.torch_attn, "_varlen_attn", forward)
    offsets = torch.tensor([0, 5, 12], dtype=torch.int32)
    query, key, value = (states(seed, heads).transpose(0, 1) for seed, heads in ((0, HEADS), (1, 2), (2, 2)))
    attention._torch_varlen(query, key, value, offsets, 7, 0.3, (2, 2))
    (given,) = asked
    assert given[5:11] == (7, 7, False, 0.3, [2, 2], True)
    assert given[-1] == varlen._FLASH_ATTENTION_BACKEND, "the same kernel for every length and window"
