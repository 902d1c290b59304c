"""The packed attention op against plain attention of each row."""

import importlib.util
import itertools
from types import SimpleNamespace

import pytest
import torch
from sluice_server.backend import ModelInfo
from sluice_server.model.attention import packed_attention, padded_attention
from torch.nn.functional import scaled_dot_product_attention

HEADS, WIDTH = 4, 8


def states(tokens: int, heads: int, seed: int) -> torch.Tensor:
    return torch.randn(heads, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("key_heads", [4, 2], ids=["all heads", "grouped heads"])
@pytest.mark.parametrize("window", [0, 3, 200], ids=["sees all", "window", "window above every row"])
@pytest.mark.parametrize("lengths", [[1], [7, 7, 7], [3, 9, 9, 1, 40]])
def test_each_row_attends_to_itself_alone(lengths: list[int], window: int, key_heads: int) -> None:
    total = sum(lengths)
    query, key, value = states(total, HEADS, 0), states(total, key_heads, 1), states(total, key_heads, 2)
    ends = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    got = packed_attention(query, key, value, torch.tensor(ends), 0.3, window)
    for start, end in itertools.pairwise(ends):
        places = torch.arange(end - start)
        mask = (places[:, None] - places[None]).abs() < window if window else None
        expected = scaled_dot_product_attention(
            query[None, :, start:end], key[None, :, start:end], value[None, :, start:end],
            attn_mask=mask, scale=0.3, enable_gqa=True,
        )  # fmt: skip
        torch.testing.assert_close(got[start:end], expected[0].transpose(0, 1))


def test_the_compiler_sees_the_true_shape() -> None:
    query, key, value = (states(12, HEADS, seed) for seed in range(3))
    torch.library.opcheck(packed_attention, (query, key, value, torch.tensor([0, 5, 12]), 0.3, 0))


@pytest.mark.parametrize(
    ("device", "dtype", "supported", "installed", "chosen"),
    [
        ("cuda", "bfloat16", True, True, "flash_attention_2"),
        ("cuda", "float16", True, True, "flash_attention_2"),
        ("cuda", "float32", True, True, "sdpa"),
        ("cpu", "bfloat16", True, True, "sdpa"),
        ("cuda", "bfloat16", False, True, "sdpa"),
        ("cuda", "bfloat16", True, False, "sdpa"),
    ],
)
def test_flash_attention_serves_the_padded_layout_where_it_can(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, supported: bool, installed: bool, chosen: str
) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if installed and name == "flash_attn" else None
    )
    model = SimpleNamespace(_supports_flash_attn=supported)
    info = ModelInfo("m", None, 4, 64, 64, 100, dtype, device, "padded", "mean", {})
    assert padded_attention(model, info) == chosen  # type: ignore[arg-type]
