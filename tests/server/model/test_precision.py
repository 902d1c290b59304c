"""Probed, never assumed."""

import pytest
import torch
from sluice_server.errors import ModelLoadError
from sluice_server.model import precision


@pytest.mark.parametrize("native", ["avx512_bf16", "amx_bf16"])
def test_native_bfloat16_is_taken(monkeypatch: pytest.MonkeyPatch, native: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {native: True})
    assert precision.choose_dtype("auto", "cpu") == "bfloat16"


def test_emulated_bfloat16_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True})
    assert precision.choose_dtype("auto", "cpu") == "float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_wish_is_obeyed(dtype: str) -> None:
    assert precision.choose_dtype(dtype, "cpu") == dtype


def test_cuda_where_there_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.choose_device("auto") == "cpu"
    with pytest.raises(ModelLoadError, match=r"DEVICE=cuda: .*expected cpu, or auto"):
        precision.choose_device("cuda")
