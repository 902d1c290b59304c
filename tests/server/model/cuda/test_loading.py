"""What a GPU is trusted with: only what comes near to float32 on the fixed texts."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sluice_server.backend import Backend, Batch
from sluice_server.errors import ModelLoadError
from sluice_server.model import precision
from sluice_server.model.cuda import loading
from sluice_server.model.cuda.backend import GraphBackend, ModelParts
from sluice_server.model.cuda.fp8 import Fp8Linear
from sluice_server.model.cuda.streams import HostQueue
from sluice_server.model.pooling import Pooling
from transformers import PreTrainedModel

from tests.server.model.conftest import VOCAB_SIZE, load, random_batch
from tests.server.model.cuda.conftest import LIMITS, PACKED, PAD_ID, tiny_info, tiny_model

Folders = Callable[[str], Path]


def exact_of(folder: Path, batch: Batch) -> np.ndarray:
    return load(folder, layout="padded").backend.embed(batch).embeddings


def packed(model: PreTrainedModel, exact: np.ndarray) -> GraphBackend | None:
    parts = ModelParts(Pooling("mean", (), VOCAB_SIZE), PAD_ID, 0, "f")
    return loading.packed_backend(model, tiny_info(), parts, LIMITS, random_batch(), exact, HostQueue())


def test_a_model_that_agrees_is_packed(family_folder: Folders) -> None:
    folder = family_folder("modernbert")
    assert packed(tiny_model(folder), exact_of(folder, random_batch())) is not None


def test_a_gpu_that_computes_something_else_is_not_packed(
    family_folder: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    folder = family_folder("bert")
    assert packed(tiny_model(folder), -exact_of(folder, random_batch())) is None
    assert "packed rows differ from float32's on the GPU: cosine -1.0" in caplog.text


@pytest.mark.parametrize(
    "failure", [RuntimeError("no kernel image"), subprocess.CalledProcessError(1, "gcc")], ids=["kernel", "compiler"]
)
def test_a_gpu_without_a_kernel_is_not_packed(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    folder = family_folder("bert")
    model = tiny_model(folder)

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(type(model), "forward", fail)
    assert packed(model, np.ones((7, 32), dtype=np.float32)) is None
    assert f"the GPU does not take packed rows: {failure}" in caplog.text


def test_a_model_with_an_attention_of_its_own_is_not_packed_on_a_gpu(
    family_folder: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    folder = family_folder("mpnet")
    assert packed(tiny_model(folder), np.ones((7, 32), dtype=np.float32)) is None
    assert "the GPU does not take packed rows: MPNetModel has an attention of its own" in caplog.text


def test_fp8_serves_where_it_stays_near_float32(family_folder: Folders) -> None:
    folder, probe = family_folder("bert"), random_batch()
    model, exact = tiny_model(folder), exact_of(folder, probe)
    backend = packed(model, exact)
    assert backend is not None
    plain = backend.embed(probe).embeddings
    loading.serve_fp8(model, backend, probe, exact)
    assert backend.execution == "eager-fp8"
    assert any(isinstance(layer, Fp8Linear) for layer in model.modules())
    assert np.abs(backend.embed(probe).embeddings - plain).max() > 1e-4, "it does multiply otherwise"


@pytest.mark.parametrize("fails", [False, True], ids=["too far", "no kernel"])
def test_fp8_that_does_not_is_taken_back(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    folder, probe = family_folder("bert"), random_batch()
    model, exact = tiny_model(folder), exact_of(folder, probe)
    backend = packed(model, exact)
    assert backend is not None

    def wrong(_: Fp8Linear, states: torch.Tensor) -> torch.Tensor:
        if fails:
            raise RuntimeError("no fp8 here")
        return torch.full((*states.shape[:-1], _.weight.shape[0]), float("nan"))

    monkeypatch.setattr(Fp8Linear, "forward", wrong)
    loading.serve_fp8(model, backend, probe, exact)
    assert "QUANTIZATION=fp8 is not used: " in caplog.text
    assert backend.execution == "eager"
    np.testing.assert_allclose(backend.embed(probe).embeddings, exact, atol=1e-5)


def on_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Backend:
    """What a machine with a GPU would load, all but the GPU: what is on it lies on the CPU."""
    monkeypatch.setattr(precision, "choose_device", lambda _: "cuda")
    monkeypatch.setattr(torch.nn.Module, "to", lambda model, _: model)
    monkeypatch.setattr(loading, "CudaQueue", HostQueue)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    return load(folder, **{"dtype": "bfloat16", **settings}).backend


@pytest.mark.parametrize("family", PACKED)
def test_a_gpu_packs_by_default(family_folder: Folders, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    on_cpu = load(family_folder(family)).backend
    backend = on_gpu(family_folder(family), monkeypatch)
    assert isinstance(backend, GraphBackend)
    assert (backend.info.layout, backend.info.device, backend.execution) == ("packed", "cuda", "eager")
    assert backend.fingerprint() == on_cpu.fingerprint(), "the same model, wherever it is served"


def test_the_fixed_texts_are_a_batch_however_small_batches_are_to_be(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_gpu(family_folder("bert"), monkeypatch, max_batch_tokens=16, max_batch_rows=1)
    assert backend.info.layout == "packed"


def test_fp8_is_served_where_it_is_asked_for(family_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_gpu(family_folder("bert"), monkeypatch, quantization="fp8").execution == "eager-fp8"


def test_fp8_on_a_cpu_is_said_to_be_off(family_folder: Folders, caplog: pytest.LogCaptureFixture) -> None:
    assert load(family_folder("bert"), quantization="fp8").backend.execution == "eager"
    assert "QUANTIZATION=fp8 is not used: it needs a GPU" in caplog.text


def test_int8_on_a_gpu_is_said_to_be_off(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_gpu(family_folder("bert"), monkeypatch, quantization="int8")
    assert "QUANTIZATION=int8 is not used" in caplog.text


def test_a_gpu_that_must_pack_and_cannot_says_so(family_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "lowest_cosine", lambda *_: 0.5)
    with pytest.raises(ModelLoadError, match="LAYOUT=packed: the GPU does not compute it as float32 does"):
        on_gpu(family_folder("bert"), monkeypatch, layout="packed")
