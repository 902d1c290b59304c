"""A forward as a GPU would be told it: tensors without contents, on a device that need not be there."""

import pytest
import torch
from sluice_server.model.cuda import fp8, staging
from sluice_server.model.cuda.forward import PackedForward
from sluice_server.model.cuda.shapes import Shape
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import AutoModel

from tests.server.model.conftest import FAMILIES
from tests.server.model.cuda.conftest import PACKED

SHAPE = Shape(tokens=128, rows=9)


def forward_on_gpu(family: str, *, in_fp8: bool = False) -> PackedForward:
    with torch.device("meta"):
        model = AutoModel.from_config(FAMILIES[family](), dtype=torch.bfloat16).eval()
    for module in model.modules():
        for named in (module._parameters, module._buffers):
            for name, tensor in named.items():
                if tensor is not None:
                    kept = torch.empty_like(tensor, device="cuda")
                    named[name] = torch.nn.Parameter(kept, requires_grad=False) if named is module._parameters else kept
    if in_fp8:
        fp8.quantize(model)
    return PackedForward(model, staging.sections(SHAPE).size, SHAPE.tokens)


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("in_fp8", [False, True], ids=["bfloat16", "fp8"])
def test_nothing_in_a_forward_waits_for_a_value_of_the_device(family: str, in_fp8: bool) -> None:
    with FakeTensorMode(), torch.inference_mode():
        rows = forward_on_gpu(family, in_fp8=in_fp8)(SHAPE)
    assert (rows.device.type, rows.dtype, tuple(rows.shape)) == ("cuda", torch.float32, (SHAPE.rows, 32))


def test_a_wait_would_be_seen() -> None:
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.zeros(3, device="cuda").sum().item()
