"""Attention over a packed batch on a GPU: offsets stay on the device, and one launch computes every row."""

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, PreTrainedModel

from sluice_server.model.attention import as_layer, attended_shape, packed_attention, takes_packed

NAME = "sluice_varlen"

_Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, float, tuple[int, int]], torch.Tensor]


@torch.library.custom_op("sluice::varlen_attention", mutates_args=(), device_types="cpu")
def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    scale: float,
    window: int,
    max_length: int,  # noqa: ARG001 - what the GPU's kernels are launched for
) -> torch.Tensor:
    """The same as packed_attention, with the offsets on the device and rows that may have no tokens.

    Args:
        query: (heads, tokens, head_dim); on a GPU bfloat16 or float16; key and value likewise, with as many heads or a
            divisor of them.
        key: See query.
        value: See query.
        cu_seqlens: int32 (rows + 1,) on the same device.
        scale: Of the scores.
        window: A token sees those at a distance below it; 0 sees all.
        max_length: No row is longer.

    Returns:
        (tokens, heads, head_dim).
    """
    out: torch.Tensor = packed_attention(query, key, value, cu_seqlens, scale, window)
    return out


@varlen_attention.register_kernel("cuda")
def attend_on_gpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    scale: float,
    window: int,
    max_length: int,
) -> torch.Tensor:
    """flash-attn's kernel where the package is installed, else torch's own copy of it."""
    tokens_first = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    return _kernel()(*tokens_first, cu_seqlens, max_length, scale, sides(window))


varlen_attention.register_fake(attended_shape)


def sides(window: int) -> tuple[int, int]:
    """Tokens seen to the left and to the right, as the kernels count them: the last one is seen, -1 is no limit."""
    return (window - 1, window - 1) if window else (-1, -1)


def use(model: PreTrainedModel) -> None:
    """Has the model attend with varlen_attention.

    Raises:
        ValueError: The model has only an attention of its own.
    """
    if not takes_packed(model):
        raise ValueError(f"{type(model).__name__} has an attention of its own")
    AttentionInterface.register(NAME, as_layer(varlen_attention, "max_length_q"))
    model.set_attn_implementation(NAME)


@functools.cache
def _kernel() -> _Kernel:
    return _torch_varlen if importlib.util.find_spec("flash_attn") is None else _flash_attn


def _flash_attn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_length: int,
    scale: float,
    window: tuple[int, int],
) -> torch.Tensor:
    from flash_attn import flash_attn_varlen_func  # noqa: PLC0415 - an extra

    out: torch.Tensor = flash_attn_varlen_func(
        query, key, value, cu_seqlens, cu_seqlens, max_length, max_length, softmax_scale=scale, window_size=window
    )
    return out


def _torch_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_length: int,
    scale: float,
    window: tuple[int, int],
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - not in every torch

    # cuDNN would be preferred on Hopper for some lengths and windows; one kernel for all of them keeps a row's
    # embedding the same in every shape.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = varlen_attn(
            query, key, value, cu_seqlens, cu_seqlens, max_length, max_length,
            scale=scale, window_size=window, enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
    assert isinstance(out, torch.Tensor), "only who asks for more gets more"
    return out
