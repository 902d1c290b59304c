"""fp8 by its numbers; the GPU's own multiplication is played by the exact product of the same rounded values."""

from types import SimpleNamespace

import pytest
import torch
from sluice_server.backend import ModelInfo
from sluice_server.model.cuda import fp8


def info(device: str = "cuda", dtype: str = "bfloat16", layout: str = "packed") -> ModelInfo:
    return ModelInfo("m", None, 32, 64, 64, 100, dtype, device, layout, "mean", {})


def linear(inputs: int = 64, outputs: int = 32, *, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(inputs, outputs, bias=bias)


def test_a_rows_largest_value_is_kept_and_the_others_to_an_eighth_of_their_size() -> None:
    rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, 5)[:, None]
    rounded, scales = fp8.quantize_rows(rows)
    again = rounded.float() * scales
    torch.testing.assert_close(again.abs().amax(1), rows.abs().amax(1))
    normal = rows.abs() > rows.abs().amax(1, keepdim=True) / 448 * 2**-6
    assert ((again - rows).abs() / rows.abs())[normal].max() <= 1 / 16 + 1e-3


def test_a_row_of_zeros_stays_one() -> None:
    rounded, scales = fp8.quantize_rows(torch.zeros(2, 16))
    assert not (rounded.float() * scales).any()
    assert torch.isfinite(scales).all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_in_fp8_is_near_the_exact_one(bias: bool) -> None:
    exact = linear(bias=bias)
    states = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(2))
    got, expected = fp8.Fp8Linear(exact)(states), exact(states)
    assert got.shape == expected.shape
    assert torch.nn.functional.cosine_similarity(got, expected, dim=-1).min() > 0.998


def test_the_result_has_the_dtype_of_the_states() -> None:
    layer = fp8.Fp8Linear(linear().to(torch.bfloat16))
    assert layer(torch.ones(3, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_only_layers_that_the_kernels_take_are_replaced_and_all_come_back() -> None:
    model = torch.nn.Sequential(linear(), torch.nn.Sequential(linear(32, 24)), torch.nn.LayerNorm(24))
    before = list(model.modules())
    undo = fp8.quantize(model)
    assert isinstance(model[0], fp8.Fp8Linear)
    assert isinstance(model[1][0], torch.nn.Linear)
    undo()
    assert list(model.modules()) == before


def test_the_gpus_multiplication_is_asked_for_rows_and_columns_of_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SimpleNamespace] = []

    def scaled(rows: torch.Tensor, columns: torch.Tensor, left: torch.Tensor, right: torch.Tensor, **more: object):
        asked.append(SimpleNamespace(right=right, columns=columns, **more))
        return ((rows.float() * left) @ (columns.float() * right)).to(torch.bfloat16)

    monkeypatch.setattr(fp8.torch, "_scaled_mm", scaled)
    exact = linear(bias=False).to(torch.bfloat16)
    (rows, row_scales), (weight, weight_scales) = fp8.quantize_rows(torch.ones(3, 64)), fp8.quantize_rows(exact.weight)
    got = fp8._on_gpu(rows, row_scales, weight, weight_scales, None, torch.bfloat16)
    expected = fp8._exactly(rows, row_scales, weight, weight_scales, None, torch.bfloat16)
    torch.testing.assert_close(got, expected)
    assert asked[0].right.shape == (1, 32)
    assert asked[0].columns.stride() == (1, 64), "the second matrix lies column by column"


@pytest.mark.parametrize(
    ("model", "capability", "reason"),
    [
        (info(), (9, 0), None),
        (info(), (8, 9), None),
        (info(), (8, 0), "this GPU's compute capability is 8.0; expected 8.9 or above"),
        (info(device="cpu"), (9, 0), "it needs a GPU"),
        (info(layout="padded"), (9, 0), "it needs the packed layout"),
        (info(dtype="float16"), (9, 0), "it needs DTYPE=bfloat16, not float16"),
    ],
)
def test_where_it_can_be_had(
    monkeypatch: pytest.MonkeyPatch, model: ModelInfo, capability: tuple[int, int], reason: str | None
) -> None:
    monkeypatch.setattr(fp8.torch.cuda, "get_device_capability", lambda: capability)
    assert fp8.obstacle(model) == reason
