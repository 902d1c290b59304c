"""Attention over a packed batch: rows lie one behind the other, and none sees its neighbours.

Registered with transformers under its own name, so models need no change. transformers builds no mask for a
name that has no mask function; under its stock names a packed input would attend across rows without an error.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from transformers import AttentionInterface, PreTrainedModel

from sluice_server.backend import ModelInfo

NAME = "sluice_packed"


@torch.library.custom_op("sluice::packed_attention", mutates_args=())
def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    scale: float,
    window: int,
) -> torch.Tensor:
    """Runs of equal length are computed as one rectangle each, so rows sorted by length make few of them.

    Args:
        query: (heads, tokens, head_dim); key and value likewise, with as many heads or a divisor of them.
        key: See query.
        value: See query.
        cu_seqlens: int32 (rows + 1,) on the CPU: row i is tokens cu_seqlens[i] to cu_seqlens[i + 1], or has none.
        scale: Of the scores.
        window: A token sees those at a distance below it; 0 sees all.

    Returns:
        (tokens, heads, head_dim), contiguous.
    """
    heads, tokens, width = query.shape
    out = query.new_empty(tokens, heads, width)
    for start, rows, length in _equal_runs(cu_seqlens):
        end = start + rows * length
        mask = _band(length, window, query) if 0 < window < length else None
        attended = F.scaled_dot_product_attention(
            _rectangle(query, start, end, rows),
            _rectangle(key, start, end, rows),
            _rectangle(value, start, end, rows),
            attn_mask=mask,
            scale=scale,
            enable_gqa=key.shape[0] != heads,
        )
        out[start:end].view(rows, length, heads, width).copy_(attended.transpose(1, 2))
    return out


@packed_attention.register_fake
def attended_shape(query: torch.Tensor, *_: object) -> torch.Tensor:
    """What packed_attention and every other operator like it gives, without computing it."""
    heads, tokens, width = query.shape
    return query.new_empty(tokens, heads, width)


def takes_packed(model: PreTrainedModel) -> bool:
    """Whether the model calls registered attention at all; whether it then computes the same, layout.py sees."""
    return bool(model._can_set_attn_implementation())  # noqa: SLF001 - the public setter only warns


def use(model: PreTrainedModel, info: ModelInfo) -> None:
    """Chooses the attention of a model for its layout; one that has only its own keeps it."""
    if info.layout == "packed":
        AttentionInterface.register(NAME, as_layer(packed_attention))
    if takes_packed(model):
        model.set_attn_implementation(NAME if info.layout == "packed" else padded_attention(model, info))


def padded_attention(model: PreTrainedModel, info: ModelInfo) -> str:
    """flash_attention_2, which skips the padding, where the extra flash-attn is there and can compute it; else sdpa."""
    computable = info.device == "cuda" and info.dtype in ("bfloat16", "float16")
    supported = bool(getattr(model, "_supports_flash_attn", False))
    installed = importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if computable and supported and installed else "sdpa"


def as_layer(
    compute: Callable[..., torch.Tensor], told: str = "cu_seq_lens_q"
) -> Callable[..., tuple[torch.Tensor, None]]:
    """What a transformers attention layer calls, around an operator like packed_attention.

    Args:
        compute: The operator; its fourth argument says where rows lie.
        told: The argument of the model's call that this is.
    """

    def layer(
        module: torch.nn.Module,  # noqa: ARG001
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,  # noqa: ARG001 - rows are told apart by where they lie
        *,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """(1, heads, tokens, head_dim) in, (1, tokens, heads, head_dim) out."""
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        out = compute(query[0], key[0], value[0], others[told], scale, sliding_window or 0)
        return out.unsqueeze(0), None

    return layer


def _equal_runs(cu_seqlens: torch.Tensor) -> list[tuple[int, int, int]]:
    """(first token, rows, length) of each run of neighbouring rows of one length; rows without tokens are left out."""
    lengths = cu_seqlens.diff()
    values, counts = torch.unique_consecutive(lengths, return_counts=True)
    runs, start = [], 0
    for length, rows in zip(values.tolist(), counts.tolist(), strict=True):
        if length:
            runs.append((start, rows, length))
        start += rows * length
    return runs


def _rectangle(states: torch.Tensor, start: int, end: int, rows: int) -> torch.Tensor:
    """(heads, tokens, head_dim) to (rows, heads, length, head_dim), without a copy."""
    heads, _, width = states.shape
    return states[:, start:end].reshape(heads, rows, -1, width).transpose(0, 1)


def _band(length: int, window: int, like: torch.Tensor) -> torch.Tensor:
    places = torch.arange(length, device=like.device)
    return (places[:, None] - places[None, :]).abs() < window
