"""A loaded model gives sentence-transformers' embeddings, and obeys its settings."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluice_server.backend import Batch
from sluice_server.errors import ModelLoadError
from sluice_server.model import LoadedModel, ModelConfig, load_model
from sluice_server.tokenizer import Truncation

from tests.server.model.conftest import cosines, load, random_batch

Folders = Callable[[str], Path]
TEXTS = [
    "A short one.",
    "",
    "  spaces  and\nlines ",
    "Größe, 東京, emoji 🙂 and UPPER case",
    "The quick brown fox jumps over the lazy dog. " * 100,
    "red cotton t-shirt, size M",
]


def embed(loaded: LoadedModel, texts: list[str]) -> np.ndarray:
    encoded = loaded.tokenizer.encode(texts, prompt=None, truncate=Truncation.END)
    return loaded.backend.embed(Batch(encoded.token_ids, encoded.lengths, 256, 8)).embeddings


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_minilm_equals_sentence_transformers(model_folder: Path, reference: Any, layout: str) -> None:
    ours = embed(load(model_folder, layout=layout), TEXTS)
    assert cosines(ours, reference.encode(TEXTS)).min() >= 0.9999


def test_a_model_that_todays_sentence_transformers_saved_is_cut_where_it_cuts(reference: Any, tmp_path: Path) -> None:
    reference.save(str(tmp_path))
    assert "max_seq_length" not in json.loads((tmp_path / "sentence_bert_config.json").read_text())
    loaded = load(tmp_path)
    assert loaded.backend.info.max_input_tokens == reference.max_seq_length == 256
    assert cosines(embed(loaded, TEXTS), reference.encode(TEXTS)).min() >= 0.9999


def test_minilm_in_bfloat16_is_close(model_folder: Path, reference: Any) -> None:
    assert cosines(embed(load(model_folder, dtype="bfloat16"), TEXTS), reference.encode(TEXTS)).min() >= 0.999


def test_embeddings_are_not_normalized(family_folder: Folders) -> None:
    norms = np.linalg.norm(load(family_folder("bert")).backend.embed(random_batch()).embeddings, axis=1)
    assert np.abs(norms - 1).min() > 0.05


def test_what_is_known_of_minilm(model_folder: Path) -> None:
    info = load(model_folder).backend.info
    assert (info.dimension, info.max_input_tokens, info.max_position_tokens) == (384, 256, 512)
    assert (info.vocab_size, info.pooling, info.revision, info.layout) == (30522, "mean", None, "packed")


def test_control_tokens_are_left_out_of_the_mean(family_folder: Folders) -> None:
    texts = ["[query] w1 w2", "w3 [title]"]
    plain = load(family_folder("bert"))
    without = load(family_folder("bert"), exclude_tokens=("[query]", "[not in the vocabulary]"))
    cosine = cosines(embed(plain, texts), embed(without, texts))
    assert cosine[0] < 0.9999
    assert cosine[1] == pytest.approx(1)


def test_special_tokens_are_left_out_when_asked(family_folder: Folders) -> None:
    folder = family_folder("bert")
    without = load(folder, exclude_special_tokens=True)
    assert cosines(embed(load(folder), ["w1"]), embed(without, ["w1"]))[0] < 0.9999
    # An empty text is nothing but special tokens: it is pooled whole.
    np.testing.assert_allclose(embed(without, [""]), embed(load(folder), [""]), atol=1e-6)


def test_a_longer_input_than_the_positions_cannot_be_asked_for(family_folder: Folders) -> None:
    with pytest.raises(ModelLoadError, match="MAX_INPUT_TOKENS=161: the model's positions end at 160"):
        load(family_folder("bert"), max_input_tokens=161)


def test_the_asked_length_is_where_texts_are_cut(family_folder: Folders) -> None:
    loaded = load(family_folder("bert"), max_input_tokens=10)
    assert loaded.tokenizer.encode(["w1 " * 50], prompt=None, truncate=Truncation.END).lengths.tolist() == [10]


def test_no_tokenizer_is_an_error_and_not_an_empty_one(family_folder: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family_folder("bert"), tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match="no tokenizer in"):
        load(folder)


def test_a_model_without_a_table_of_positions_is_refused(tmp_path: Path, family_folder: Folders) -> None:
    folder = Path(shutil.copytree(family_folder("bert"), tmp_path / "model"))
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ModelLoadError, match="t5 models have no table of positions"):
        load(folder)


def test_a_broken_config_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match=f"MODEL_PATH={tmp_path}"):
        load(tmp_path)


def test_loading_is_reported(family_folder: Folders) -> None:
    told: list[tuple[str, str]] = []
    load_model(ModelConfig(str(family_folder("bert"))), lambda phase, sentence: told.append((phase, sentence)))
    assert [phase for phase, _ in told] == ["loading"]


def test_the_settings_of_a_model_need_no_torch() -> None:
    script = "import sys, sluice_server.model as room; room.ModelConfig; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
