"""A model's own prompts, from its files to the embedding, against sentence-transformers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sluice_client import EmbeddingClient, EmbeddingError, EmbedOptions

from tests.server.conftest import RunningServer, minilm_folder, running_server
from tests.server.test_apis import get

PROMPTS = {"query": "Represent this question: ", "passage": "Represent this passage: "}
TEXTS = ["how do I return an item", "Items can be returned within a month."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with prompts, one of which is its default."""
    folder = tmp_path_factory.mktemp("prompts") / "model"
    shutil.copytree(minilm_folder(), folder)
    described = {"prompts": PROMPTS, "default_prompt_name": "passage"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def prompting(folder: Path) -> Iterator[RunningServer]:
    with running_server(model_path=str(folder), dtype="float32", compile="off") as running:
        running.wait_for_phase("serving")
        yield running


def embed(running: RunningServer, prompt_name: str | None = None) -> np.ndarray:
    with EmbeddingClient(running.grpc_target, deadline_seconds=30) as client:
        return client.embed(TEXTS, EmbedOptions(prompt_name=prompt_name))


@pytest.mark.parametrize("name", ["query", "passage"])
def test_a_named_prompt_goes_before_each_text(
    prompting: RunningServer, reference: SentenceTransformer, name: str
) -> None:
    theirs = reference.encode(TEXTS, prompt_name=name, normalize_embeddings=True)
    assert np.abs(embed(prompting, prompt_name=name) - theirs).max() < 1e-4


def test_without_a_name_the_models_default_does(prompting: RunningServer, reference: SentenceTransformer) -> None:
    ours = embed(prompting)
    assert np.abs(ours - reference.encode(TEXTS, normalize_embeddings=True)).max() < 1e-4
    assert np.allclose(ours, embed(prompting, prompt_name="passage"), atol=1e-5)
    told = json.loads(get(f"{prompting.url}/v1/embeddings", {"input": TEXTS}))["data"]
    assert np.allclose([one["embedding"] for one in told], ours, atol=1e-5), "over HTTP, which cannot name one, too"


def test_an_empty_name_puts_nothing_there(prompting: RunningServer, reference: SentenceTransformer) -> None:
    theirs = reference.encode(TEXTS, prompt="", normalize_embeddings=True)
    assert np.abs(embed(prompting, prompt_name="") - theirs).max() < 1e-4


def test_a_prompt_that_the_model_has_not_is_named_with_those_that_it_has(prompting: RunningServer) -> None:
    with pytest.raises(EmbeddingError, match="prompt_name='title'; expected one of: passage, query") as refused:
        embed(prompting, prompt_name="title")
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_info_says_which_prompts_there_are(prompting: RunningServer) -> None:
    info = json.loads(get(f"{prompting.url}/info"))
    assert (info["prompts"], info["default_prompt_name"]) == (PROMPTS, "passage")
