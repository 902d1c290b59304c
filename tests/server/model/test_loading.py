"""Every weight or an error; every error says what was looked for and what is expected."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sluice_server.backend import Batch
from sluice_server.errors import ModelLoadError
from sluice_server.model import ModelConfig, load_model

from tests.server.model.checkpoints import random_model, save

BATCH = Batch(np.array([1, 10, 11, 2], np.int32), np.array([4], np.int32), 16, 8)


def quiet(_phase: str, _sentence: str) -> None:
    pass


def config(folder: Path | str, **changes: object) -> ModelConfig:
    return ModelConfig(str(folder), dtype="float32", device="cpu", **changes)  # type: ignore[arg-type]


def embed(folder: Path | str, **changes: object) -> np.ndarray:
    return load_model(config(folder, **changes), quiet).backend.embed(BATCH).embeddings


def change_weights(folder: Path, change: object) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)  # type: ignore[operator]


def test_a_folder_may_be_named_by_path_or_by_url(tmp_path: Path) -> None:
    save(random_model("bert"), tmp_path)
    assert np.array_equal(embed(tmp_path), embed(f"file://{tmp_path}"))


@pytest.mark.parametrize("prefixed", [True, False], ids=["every-key-prefixed", "plain-bert"])
def test_an_extra_encoder_prefix_is_stripped_only_when_every_key_has_it(tmp_path: Path, prefixed: bool) -> None:
    """Plain BERT has keys named encoder.layer…, too: stripping those would leave random weights."""
    save(random_model("bert"), tmp_path)
    expected = embed(tmp_path)
    if prefixed:
        change_weights(tmp_path, lambda state: {f"encoder.{key}": value for key, value in state.items()})
    assert np.array_equal(embed(tmp_path), expected)


def test_a_missing_weight_is_an_error_that_names_it(tmp_path: Path) -> None:
    save(random_model("bert"), tmp_path)
    gone = "encoder.layer.1.attention.self.query.weight"
    change_weights(tmp_path, lambda state: {key: value for key, value in state.items() if key != gone})
    with pytest.raises(ModelLoadError, match=f"lacks weights of BertModel: {gone}"):
        embed(tmp_path)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("/no/such/folder", r"there is no folder /no/such/folder; expected one with config\.json"),
        ("ftp://a/b", r"MODEL_PATH=ftp://a/b: unknown scheme; expected a folder"),
        ("three/part/name", r"not a hub id; expected a folder"),
    ],
)
def test_a_model_that_cannot_be_found_is_named(uri: str, sentence: str) -> None:
    with pytest.raises(ModelLoadError, match=sentence):
        embed(uri)


def test_a_folder_without_a_model_is_described(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("nothing here")
    with pytest.raises(ModelLoadError, match=r"no config\.json in .*; it holds readme\.md"):
        embed(tmp_path)


def test_weights_that_could_run_code_are_not_loaded(tmp_path: Path) -> None:
    model = random_model("bert")
    save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"no \.safetensors in"):
        embed(tmp_path)


def test_a_hub_model_in_the_cache_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    folder = tmp_path / "models--org--tiny"
    save(random_model("bert"), folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    phases: list[str] = []
    loaded = load_model(config("hf://org/tiny", cache_dir=str(tmp_path)), lambda phase, _: phases.append(phase))
    assert loaded.backend.info.revision == commit
    assert phases == ["downloading", "loading"]
    with pytest.raises(ModelLoadError, match=r"MODEL_PATH=org/other: not in .*, and the hub cannot be reached"):
        load_model(config("org/other", cache_dir=str(tmp_path)), quiet)


def test_texts_end_where_the_model_ends_unless_told_otherwise(tmp_path: Path) -> None:
    save(random_model("roberta"), tmp_path)
    assert load_model(config(tmp_path), quiet).backend.info.max_input_tokens == 80
    assert load_model(config(tmp_path, max_input_tokens=16), quiet).backend.info.max_input_tokens == 16
    with pytest.raises(ModelLoadError, match="MAX_INPUT_TOKENS=81: the model's positions end at 80"):
        load_model(config(tmp_path, max_input_tokens=81), quiet)


def test_an_unknown_pooling_or_layer_is_refused(tmp_path: Path) -> None:
    save(random_model("bert"), tmp_path, pooling="mean")
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ModelLoadError, match="asks for pooling_mode_max_tokens; expected one of mean"):
        embed(tmp_path)
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(ModelLoadError, match=r"modules\.json names a Dense layer"):
        embed(tmp_path)
