"""The files that sentence-transformers writes beside a model."""

import json
from pathlib import Path
from typing import Any

import pytest
from sluice_server.errors import ModelLoadError
from sluice_server.model import sentence_files


def write(folder: Path, name: str, content: Any) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_plain_model_is_pooled_by_its_mean(tmp_path: Path) -> None:
    assert sentence_files.read(tmp_path) == sentence_files.SentenceFiles()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_the_pooling_of_either_format(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    write(tmp_path, "1_Pooling/config.json", config)
    assert sentence_files.read(tmp_path).pooling == expected


@pytest.mark.parametrize(
    "config",
    [{"pooling_mode_max_tokens": True}, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}],
)
def test_a_pooling_that_is_not_served_is_an_error(tmp_path: Path, config: dict[str, Any]) -> None:
    write(tmp_path, "1_Pooling/config.json", config)
    with pytest.raises(ModelLoadError, match="expected one of mean, cls, last"):
        sentence_files.read(tmp_path)


@pytest.mark.parametrize("kind", ["sentence_transformers.models.Dense", "custom.Layer"])
def test_a_module_that_is_not_served_is_an_error(tmp_path: Path, kind: str) -> None:
    write(tmp_path, "modules.json", [{"type": "sentence_transformers.models.Transformer"}, {"type": kind}])
    with pytest.raises(ModelLoadError, match="expected only Transformer, Pooling, Normalize"):
        sentence_files.read(tmp_path)


def test_length_case_and_prompts(tmp_path: Path) -> None:
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 99, "do_lower_case": True})
    write(tmp_path, "config_sentence_transformers.json", {"prompts": {"query": "query: "}})
    read = sentence_files.read(tmp_path)
    assert (read.max_seq_length, read.lowercase, read.prompts) == (99, True, {"query": "query: "})
