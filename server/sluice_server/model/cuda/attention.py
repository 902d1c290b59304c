"""Attention over a packed batch on a GPU: where rows lie stays on the device, and one launch computes all of them."""

import torch
from transformers import AttentionInterface, PreTrainedModel

from sluice_server.model.attention import as_layer, attended_shape, packed_attention, takes_packed

NAME = "sluice_rows"
# What the model's call says where rows lie by.
ROW_BOUNDS = "row_bounds"


@torch.library.custom_op("sluice::row_attention", mutates_args=(), device_types="cpu")
def row_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scale: float, window: int
) -> torch.Tensor:
    """The same as packed_attention, for which each token says where its row lies.

    Args:
        query: (heads, tokens, head_dim); on a GPU bfloat16 or float16; key and value likewise, with as many heads or a
            divisor of them.
        key: See query.
        value: See query.
        bounds: int32 (2, tokens) on the same device: where each token's row starts and where it ends.
        scale: Of the scores.
        window: A token sees those at a distance below it; 0 sees all.

    Returns:
        (tokens, heads, head_dim).
    """
    cu_seqlens = torch.cat([torch.unique_consecutive(bounds[0]), bounds[1, -1:]])
    out: torch.Tensor = packed_attention(query, key, value, cu_seqlens, scale, window)
    return out


@row_attention.register_kernel("cuda")
def attend_on_gpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scale: float, window: int
) -> torch.Tensor:
    """Our own kernel; its compiler is imported where there is a GPU."""
    from sluice_server.model.cuda import kernel  # noqa: PLC0415

    return kernel.attend(query, key, value, bounds, scale, window)


row_attention.register_fake(attended_shape)


def use(model: PreTrainedModel) -> None:
    """Has the model attend with row_attention.

    Raises:
        ValueError: The model has only an attention of its own.
    """
    if not takes_packed(model):
        raise ValueError(f"{type(model).__name__} has an attention of its own")
    AttentionInterface.register(NAME, as_layer(row_attention, ROW_BOUNDS))
    model.set_attn_implementation(NAME)
