"""Compiled layers compute what the model does, once for all sizes; on a CPU, whose compiler is the same."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sluice_server.model.cuda import compiling, loading

from tests.server.model.conftest import load, random_batch
from tests.server.model.cuda.conftest import graph_backend

Folders = Callable[[str], Path]


def test_layers_are_compiled_once_for_all_numbers_of_tokens(family_folder: Folders) -> None:
    folder = family_folder("bert")
    backend, plain = graph_backend(folder), graph_backend(folder)
    compiling.compile_layers(backend._forward._model)
    batches = [random_batch(seed=1), random_batch((90, 90, 90, 1, 7), seed=2), random_batch((160,) * 6, seed=3)]
    # Layers of one kind share their code: one for the embeddings and one for the encoder's, whatever the batch.
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for batch in batches:
            ours, theirs = backend.embed(batch).embeddings, plain.embed(batch).embeddings
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_compiler_that_fails_leaves_the_model_as_it_was(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, probe = family_folder("bert"), random_batch()
    backend = graph_backend(folder)
    exact = load(folder, layout="padded").backend.embed(probe).embeddings

    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError("gcc")

    monkeypatch.setattr(backend, "embed", fail)
    loading.compile_model(backend._forward._model, backend, probe, exact)
    monkeypatch.undo()
    assert "the model stays uncompiled: FileNotFoundError: gcc" in caplog.text
    assert (backend.execution, backend.is_compiled) == ("eager", False)
    assert not any(one._compiled_call_impl for one in backend._forward._model.modules())
    np.testing.assert_allclose(backend.embed(probe).embeddings, exact, atol=1e-5)


def test_kernels_are_kept_on_the_models_volume_unless_the_compilers_are_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"TRITON_CACHE_DIR": "/elsewhere"})
    compiling.keep_kernels("/models")
    assert os.environ == {"TORCHINDUCTOR_CACHE_DIR": "/models/inductor", "TRITON_CACHE_DIR": "/elsewhere"}
