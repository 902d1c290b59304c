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


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "length"),
    [
        ({}, {}, None),
        ({}, {"model_max_length": 256}, 256),
        ({}, {"model_max_length": 10**30}, None),
        ({"max_seq_length": 99}, {"model_max_length": 256}, 99),
        ({"max_seq_length": None}, {"model_max_length": 256}, 256),
        ({"max_seq_length": 99, "processor_kwargs": {"model_max_length": 64}}, {}, 64),
        ({"max_seq_length": 99, "tokenizer_args": {"model_max_length": 64}}, {}, 64),
        ({"max_seq_length": 99, "processing_kwargs": {"text": {"max_length": 50}}}, {}, 50),
        ({}, {"max_len": 77}, 77),
    ],
)
def test_who_says_where_texts_are_truncated(
    tmp_path: Path, sentence: dict[str, Any], tokenizer: dict[str, Any], length: int | None
) -> None:
    write(tmp_path, "sentence_bert_config.json", sentence)
    write(tmp_path, "tokenizer_config.json", tokenizer)
    assert sentence_files.read(tmp_path).max_seq_length == length


def test_the_length_in_a_file_that_is_named_by_its_family(tmp_path: Path) -> None:
    write(tmp_path, "sentence_roberta_config.json", {"max_seq_length": 99})
    assert sentence_files.read(tmp_path).max_seq_length == 99


def test_a_default_prompt_that_sentence_transformers_knows_as_empty_is_none(tmp_path: Path) -> None:
    write(tmp_path, "config_sentence_transformers.json", {"default_prompt_name": "query"})
    assert sentence_files.read(tmp_path).default_prompt_name is None


def test_a_default_prompt_that_is_none_of_the_prompts_is_an_error(tmp_path: Path) -> None:
    described = {"prompts": {"query": "q: ", "title": "t: "}, "default_prompt_name": "passage"}
    write(tmp_path, "config_sentence_transformers.json", described)
    with pytest.raises(ModelLoadError, match="default_prompt_name is 'passage'; expected one of: query, title"):
        sentence_files.read(tmp_path)


def test_prompts_that_would_have_to_be_left_out_of_pooling_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "include_prompt": False})
    write(tmp_path, "config_sentence_transformers.json", {"prompts": {"query": ""}})
    assert sentence_files.read(tmp_path).prompts == {"query": ""}, "an empty one is nothing to leave out"
    write(tmp_path, "config_sentence_transformers.json", {"prompts": {"query": "q: "}})
    with pytest.raises(ModelLoadError, match="include_prompt is false"):
        sentence_files.read(tmp_path)


def test_length_case_and_prompts(tmp_path: Path) -> None:
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 99, "do_lower_case": True})
    write(tmp_path, "config_sentence_transformers.json", {"prompts": {"query": "query: "}})
    read = sentence_files.read(tmp_path)
    assert (read.max_seq_length, read.lowercase, read.prompts) == (99, True, {"query": "query: "})
