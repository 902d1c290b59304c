"""Linear layers that multiply 8-bit floats (e4m3), each row of states and of weights with a scale of its own.

Weights are rounded once, states as they come. All else keeps its precision: LayerNorm, softmax, sums, what lies between
layers.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from sluice_server.backend import ModelInfo

_FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FP8).max
# Rows of zeros have no scale of their own.
_LEAST_SCALE = 1e-12
# The GPU's kernels take dimensions in steps of so many.
_STEP = 16
_LEAST_CAPABILITY = (8, 9)


def obstacle(info: ModelInfo) -> str | None:
    """Why a model cannot be served in fp8; None where it can."""
    if info.device != "cuda":
        return "it needs a GPU"
    if info.layout != "packed":
        return "it needs the packed layout"
    if info.dtype != "bfloat16":
        return f"it needs DTYPE=bfloat16, not {info.dtype}"
    capability = torch.cuda.get_device_capability()
    if capability < _LEAST_CAPABILITY:
        return f"this GPU's compute capability is {capability[0]}.{capability[1]}; expected 8.9 or above"
    return None


class Fp8Linear(torch.nn.Module):
    """A linear layer in fp8.

    Args:
        exact: Whose weights are rounded.
    """

    def __init__(self, exact: torch.nn.Linear) -> None:
        super().__init__()
        rounded, scales = quantize_rows(exact.weight.detach())
        self.register_buffer("weight", rounded)
        self.register_buffer("scales", scales)
        self.bias = exact.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out), in the dtype of the states."""
        rows, scales = quantize_rows(states.reshape(-1, states.shape[-1]))
        multiply = _on_gpu if states.is_cuda else _exactly
        out = multiply(rows, scales, self.weight, self.scales, self.bias, states.dtype)  # type: ignore[arg-type]
        return out.view(*states.shape[:-1], -1)


def quantize(model: torch.nn.Module) -> Callable[[], None]:
    """Puts fp8 in the place of every linear layer whose dimensions the kernels take.

    Returns:
        What takes it back: the layers as they were are kept until then.
    """
    replaced: list[tuple[torch.nn.Module, str, torch.nn.Linear]] = []
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is torch.nn.Linear and not (layer.in_features % _STEP or layer.out_features % _STEP):
                setattr(parent, name, Fp8Linear(layer))
                replaced.append((parent, name, layer))

    def undo() -> None:
        for parent, name, layer in replaced:
            setattr(parent, name, layer)

    return undo


def quantize_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds each row so that its largest value is e4m3's largest.

    Args:
        rows: (n, width) in any float.

    Returns:
        e4m3 (n, width) and float32 (n, 1) that it is multiplied with to be the rows again.
    """
    largest = torch.linalg.vector_norm(rows, float("inf"), 1, keepdim=True, dtype=torch.float32)
    scales = (largest / _LARGEST).clamp(min=_LEAST_SCALE)
    return (rows / scales).to(_FP8), scales


def _on_gpu(
    rows: torch.Tensor,
    row_scales: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """(n, in) x (out, in) to (n, out), in the GPU's fp8 units."""
    out: torch.Tensor = torch._scaled_mm(  # noqa: SLF001 - its public name is newer than the oldest torch served
        rows, weight.t(), row_scales, weight_scales.t(), bias=bias, out_dtype=dtype, use_fast_accum=True
    )
    return out


def _exactly(
    rows: torch.Tensor,
    row_scales: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The same product of the same rounded values in float32, for devices without such units."""
    return functional.linear(
        rows.float() * row_scales, weight.float() * weight_scales, None if bias is None else bias.float()
    ).to(dtype)
