"""Both clients against a real server and the real model: what comes back is what sentence-transformers makes."""

from typing import Any

import numpy as np
import pytest
from sluice_client import AsyncEmbeddingClient, EmbeddingClient, EmbedOptions, InvalidRequestError
from sluice_client.splitting import limits_of

from tests.server.conftest import RunningServer

TEXTS = [f"{'word ' * (n % 40)}and number {n}" for n in range(150)]


@pytest.fixture(scope="module")
def expected(reference: Any) -> np.ndarray:
    return reference.encode(TEXTS, normalize_embeddings=True)


def worst_cosine(rows: np.ndarray, expected: np.ndarray) -> float:
    a, b = rows.astype(np.float64), expected.astype(np.float64)
    return float(np.min(np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


async def test_texts_split_over_many_requests_come_back_in_order(
    embed: Any, minilm: RunningServer, expected: np.ndarray
) -> None:
    rows = await embed(minilm.grpc_target, TEXTS, max_inputs_per_request=7)
    assert (rows.shape, rows.dtype) == ((150, 384), np.float32)
    assert worst_cosine(rows, expected) >= 0.9999
    assert rows.flags.writeable


async def test_token_ids_are_embedded_as_their_texts(
    embed: Any, minilm: RunningServer, reference: Any, expected: np.ndarray
) -> None:
    ids = reference.tokenizer(TEXTS, truncation=True, max_length=256)["input_ids"]
    assert worst_cosine(await embed(minilm.grpc_target, ids), expected) >= 0.9999
    arrays = [np.array(row, dtype=np.int64) for row in ids]
    assert worst_cosine(await embed(minilm.grpc_target, arrays), expected) >= 0.9999


@pytest.mark.parametrize(("dtype", "least"), [("float16", 0.9999), ("int8", 0.998)])
async def test_smaller_output_types_arrive_as_such(
    embed: Any, minilm: RunningServer, expected: np.ndarray, dtype: Any, least: float
) -> None:
    rows = await embed(minilm.grpc_target, TEXTS, EmbedOptions(output_dtype=dtype))
    assert rows.dtype == np.dtype(dtype)
    assert worst_cosine(rows, expected) >= least


async def test_dimensions_are_cut_and_rows_are_of_unit_length_unless_asked_otherwise(
    embed: Any, minilm: RunningServer, expected: np.ndarray
) -> None:
    rows = await embed(minilm.grpc_target, TEXTS[:20], EmbedOptions(dimensions=64))
    assert rows.shape == (20, 64)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert worst_cosine(rows, expected[:20, :64]) >= 0.9999
    raw = await embed(minilm.grpc_target, TEXTS[:20], EmbedOptions(dimensions=64, normalize=False))
    assert not np.isclose(np.linalg.norm(raw, axis=1), 1, atol=0.01).any()
    assert worst_cosine(raw, rows) >= 0.9999


async def test_truncation_is_chosen_and_told(minilm: RunningServer, reference: Any) -> None:
    long = "alpha " * 400 + "omega " * 400
    with EmbeddingClient(minilm.grpc_target) as client:
        (run,) = client.embed_iter(["short", long])
        assert run.truncated == (1,)
        end, start = (client.embed([long], EmbedOptions(truncate=side)) for side in ("end", "start"))
        assert worst_cosine(end, client.embed(["alpha " * 254])) >= 0.9999
        assert worst_cosine(start, client.embed(["omega " * 254])) >= 0.9999
        with pytest.raises(InvalidRequestError, match=r"input 131 has 802 tokens; the model takes 256") as refused:
            client.embed([*["a"] * 131, long], EmbedOptions(truncate="none"), deadline_seconds=30)
    assert 131 in (refused.value.inputs or ())
    assert refused.value.attempts == 1


async def test_a_prompt_that_the_model_does_not_have_is_refused_by_name(embed: Any, minilm: RunningServer) -> None:
    with pytest.raises(InvalidRequestError, match="prompt_name='query'; expected one of"):
        await embed(minilm.grpc_target, ["a"], EmbedOptions(prompt_name="query"))


async def test_batch_priority_is_served(embed: Any, minilm: RunningServer, expected: np.ndarray) -> None:
    rows = await embed(minilm.grpc_target, TEXTS[:8], EmbedOptions(priority="batch"))
    assert worst_cosine(rows, expected[:8]) >= 0.9999


@pytest.mark.parametrize(
    ("options", "shape", "dtype"),
    [
        (EmbedOptions(), (0, 384), np.float32),
        (EmbedOptions(dimensions=64, output_dtype="int8"), (0, 64), np.int8),
    ],
)
async def test_nothing_asked_is_an_empty_array_of_the_right_width(
    embed: Any, minilm: RunningServer, options: EmbedOptions, shape: tuple[int, int], dtype: Any
) -> None:
    rows = await embed(minilm.grpc_target, [], options)
    assert (rows.shape, rows.dtype) == (shape, dtype)


async def test_a_generator_is_read_once(embed: Any, minilm: RunningServer, expected: np.ndarray) -> None:
    assert worst_cosine(await embed(minilm.grpc_target, (text for text in TEXTS)), expected) >= 0.9999


async def test_an_async_generator_is_read_once(minilm: RunningServer, expected: np.ndarray) -> None:
    async def source() -> Any:
        for text in TEXTS:
            yield text

    async with AsyncEmbeddingClient(minilm.grpc_target) as client:
        assert worst_cosine(await client.embed(source()), expected) >= 0.9999


@pytest.mark.parametrize("wrong", ["a text", b"a text"])
async def test_one_text_in_place_of_a_list_is_refused(embed: Any, minilm: RunningServer, wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a list of texts or of rows of token ids"):
        await embed(minilm.grpc_target, wrong)


async def test_an_input_that_is_none_ends_the_call(embed: Any, minilm: RunningServer) -> None:
    with pytest.raises(TypeError, match="input 70 is a float"):
        await embed(minilm.grpc_target, [*["a"] * 70, 3.5])


def test_info_tells_model_dimension_and_limits(minilm: RunningServer) -> None:
    with EmbeddingClient(minilm.grpc_target) as client:
        info = client.info()
    assert (info.embedding_dimension, info.dtype) == (384, "float32")
    assert limits_of(info).max_inputs == minilm.server.service.limits.max_inputs
