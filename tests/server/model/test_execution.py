"""Both layouts of every architecture compute what transformers computes for each row alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sluice_server.backend import Batch
from sluice_server.model import ModelConfig, load_model
from transformers import PreTrainedModel

from tests.server.model.checkpoints import CONFIGS, VOCABULARY, random_model, save

LENGTHS = np.array([5, 64, 1, 17, 17, 33, 5], dtype=np.int32)


def quiet(_phase: str, _sentence: str) -> None:
    pass


def a_batch(lengths: NDArray[np.int32] = LENGTHS, *, seed: int = 1) -> Batch:
    ids = np.random.default_rng(seed).integers(5, VOCABULARY, int(lengths.sum()), dtype=np.int32)
    return Batch(ids, lengths, 64, 8)


def alone(model: PreTrainedModel, batch: Batch) -> NDArray[np.float32]:
    """Mean of each row's states, computed by transformers itself, one row at a time, without padding."""
    rows = np.split(batch.token_ids, np.cumsum(batch.lengths)[:-1])
    with torch.no_grad():
        states = [model(input_ids=torch.from_numpy(row.astype(np.int64))[None]).last_hidden_state[0] for row in rows]
    return torch.stack([one.mean(0) for one in states]).numpy()


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "mpnet"])
def test_each_row_is_what_transformers_computes_for_it_alone(name: str, layout: str, tmp_path: Path) -> None:
    model = random_model(name)
    config = ModelConfig(str(save(model, tmp_path)), dtype="float32", device="cpu", layout=layout)
    backend = load_model(config, quiet).backend
    batch = a_batch()
    output = backend.embed(batch)
    assert np.abs(output.embeddings - alone(model, batch)).max() <= 2e-5
    assert output.computed_tokens == (batch.useful_tokens if layout == "packed" else 64 * 8)


def test_a_model_with_relative_positions_is_served_padded(tmp_path: Path) -> None:
    model = random_model("mpnet")
    folder = str(save(model, tmp_path))
    backend = load_model(ModelConfig(folder, dtype="float32", device="cpu"), quiet).backend
    assert backend.info.layout == "padded"
    batch = a_batch()
    assert np.abs(backend.embed(batch).embeddings - alone(model, batch)).max() <= 2e-5


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_row_does_not_see_its_neighbours(layout: str, tmp_path: Path) -> None:
    folder = str(save(random_model("bert"), tmp_path))
    backend = load_model(ModelConfig(folder, dtype="float32", device="cpu", layout=layout), quiet).backend
    one, other = a_batch(seed=1), a_batch(seed=2)
    mixed_ids = other.token_ids.copy()
    mixed_ids[5:69] = one.token_ids[5:69]
    mixed = backend.embed(Batch(mixed_ids, LENGTHS, 64, 8)).embeddings
    assert np.abs(mixed[1] - backend.embed(one).embeddings[1]).max() <= 1e-5
    assert np.abs(mixed[0] - backend.embed(one).embeddings[0]).max() > 1e-2, "the neighbours did change"


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
def test_pooling_is_read_from_the_models_own_files(pooling: str, layout: str, tmp_path: Path) -> None:
    model = random_model("bert")
    folder = str(save(model, tmp_path, pooling=pooling))
    backend = load_model(ModelConfig(folder, dtype="float32", device="cpu", layout=layout), quiet).backend
    batch = a_batch()
    rows = np.split(batch.token_ids, np.cumsum(batch.lengths)[:-1])
    pick = {"cls": lambda s: s[0], "last": lambda s: s[-1], "mean": lambda s: s.mean(0)}[pooling]
    with torch.no_grad():
        states = [model(input_ids=torch.from_numpy(r.astype(np.int64))[None]).last_hidden_state[0] for r in rows]
    assert backend.info.pooling == pooling
    assert np.abs(backend.embed(batch).embeddings - np.stack([pick(s).numpy() for s in states])).max() <= 2e-5


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_control_tokens_do_not_dilute_the_mean_but_a_row_of_nothing_else_is_pooled_whole(
    layout: str, tmp_path: Path
) -> None:
    model = random_model("bert")
    folder = str(save(model, tmp_path))
    config = ModelConfig(folder, dtype="float32", device="cpu", layout=layout, exclude_tokens=("[title]", "[nowhere]"))
    backend = load_model(config, quiet).backend
    title, rows = 4, [[1, 4, 10, 11, 2], [4, 4]]
    batch = Batch(np.array([*rows[0], *rows[1]], np.int32), np.array([5, 2], np.int32), 64, 8)
    got = backend.embed(batch).embeddings
    with torch.no_grad():
        states = [model(input_ids=torch.tensor([row])).last_hidden_state[0].numpy() for row in rows]
    kept = np.array(rows[0]) != title
    assert np.abs(got[0] - states[0][kept].mean(0)).max() <= 2e-5
    assert np.abs(got[1] - states[1].mean(0)).max() <= 2e-5


def test_special_tokens_may_be_left_out_of_the_mean_too(tmp_path: Path) -> None:
    model = random_model("bert")
    config = ModelConfig(str(save(model, tmp_path)), dtype="float32", device="cpu", exclude_special_tokens=True)
    backend = load_model(config, quiet).backend
    row = [1, 10, 11, 2]
    got = backend.embed(Batch(np.array(row, np.int32), np.array([4], np.int32), 16, 8)).embeddings
    with torch.no_grad():
        states = model(input_ids=torch.tensor([row])).last_hidden_state[0].numpy()
    assert np.abs(got[0] - states[1:3].mean(0)).max() <= 2e-5


def test_the_fingerprint_tells_models_apart_but_not_precisions_or_layouts(tmp_path: Path, model_folder: Path) -> None:
    def fingerprint(folder: Path, dtype: str, layout: str) -> str:
        return load_model(
            ModelConfig(str(folder), dtype=dtype, device="cpu", layout=layout), quiet
        ).backend.fingerprint()

    of_minilm = {fingerprint(model_folder, d, n) for d in ("float32", "bfloat16") for n in ("packed", "padded")}
    assert len(of_minilm) == 1
    others = {
        fingerprint(save(random_model("bert", seed), tmp_path / str(seed)), "float32", "packed") for seed in (1, 2)
    }
    assert len(others | of_minilm) == 3
