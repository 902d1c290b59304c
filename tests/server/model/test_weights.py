"""Every weight, or an error; the extra prefix goes only where it is extra."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sluice_server.errors import ModelLoadError

from tests.server.model.conftest import alone_by_transformers, load, random_batch

State = dict[str, torch.Tensor]


@pytest.fixture
def bert(family_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(family_folder("bert"), tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def prefixed(state: State) -> State:
    return {f"encoder.{key}": value for key, value in state.items()}


def without(*fragments: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not any(part in key for part in fragments)}


def test_a_checkpoint_under_an_extra_prefix_is_the_same_model(bert: Path) -> None:
    batch = random_batch()
    expected = alone_by_transformers(bert, batch)
    rewrite(bert, prefixed)
    np.testing.assert_allclose(load(bert).backend.embed(batch).embeddings, expected, atol=1e-5)


def test_it_is_the_same_in_bfloat16(bert: Path) -> None:
    batch = random_batch()
    expected = load(bert, dtype="bfloat16").backend.embed(batch).embeddings
    rewrite(bert, prefixed)
    np.testing.assert_array_equal(load(bert, dtype="bfloat16").backend.embed(batch).embeddings, expected)


def test_a_plain_bert_keeps_the_encoder_keys_of_its_own(bert: Path) -> None:
    assert any(key.startswith("encoder.layer.") for key in load_file(bert / "model.safetensors"))
    batch = random_batch()
    np.testing.assert_allclose(
        load(bert).backend.embed(batch).embeddings, alone_by_transformers(bert, batch), atol=1e-5
    )


def test_a_prefixed_checkpoint_that_lacks_a_weight_is_an_error(bert: Path) -> None:
    rewrite(bert, lambda state: prefixed(without("layer.1.output.dense.weight")(state)))
    with pytest.raises(ModelLoadError, match="lacks weights of BertModel"):
        load(bert)


def test_encoder_keys_alone_are_not_a_prefixed_checkpoint(bert: Path) -> None:
    rewrite(bert, without("embeddings", "pooler"))
    assert all(key.startswith("encoder.") for key in load_file(bert / "model.safetensors"))
    with pytest.raises(ModelLoadError, match="lacks weights of BertModel: embeddings"):
        load(bert)


def test_a_missing_weight_is_named(bert: Path) -> None:
    rewrite(bert, without("layer.1.output.dense.weight"))
    with pytest.raises(ModelLoadError, match=r"lacks weights of BertModel: encoder\.layer\.1\.output\.dense\.weight"):
        load(bert)


def test_a_missing_pooler_is_no_loss(bert: Path) -> None:
    batch = random_batch()
    expected = load(bert).backend.embed(batch).embeddings
    rewrite(bert, without("pooler"))
    np.testing.assert_array_equal(load(bert).backend.embed(batch).embeddings, expected)


def test_a_weight_of_another_shape_is_an_error(bert: Path) -> None:
    key = "embeddings.word_embeddings.weight"
    rewrite(bert, lambda state: {**state, key: state[key][:100].clone()})
    with pytest.raises(ModelLoadError, match=r"do not fit config\.json"):
        load(bert)


def test_a_file_cut_short_is_an_error(bert: Path) -> None:
    path = bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="damaged or cut short"):
        load(bert)


def test_a_pickle_is_loaded_only_when_asked(bert: Path) -> None:
    batch = random_batch()
    expected = load(bert).backend.embed(batch).embeddings
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"no \.safetensors"):
        load(bert)
    np.testing.assert_array_equal(load(bert, allow_pickle=True).backend.embed(batch).embeddings, expected)


def test_a_prefixed_checkpoint_with_a_key_that_is_not_the_models_is_an_error(bert: Path) -> None:
    rewrite(bert, lambda state: prefixed({**state, "head.weight": torch.zeros(2)}))
    with pytest.raises(ModelLoadError, match="lacks weights of BertModel"):
        load(bert)
