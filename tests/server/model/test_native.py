"""The CPU engine of our own: what transformers computes, for any batch, and a clear word on what it does not compute."""

import copy
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_server.backend import Backend, Batch
from sluice_server.model import ModelConfig, cpp, execution, load_model
from sluice_server.model.compiled import memory
from sluice_server.model.native import architecture, library, upgrade
from sluice_server.model.native.encoder import NativeEncoder
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from tests.server.conftest import minilm_folder

BFLOAT16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
INT8 = bool(torch.cpu.get_capabilities().get("avx512_vnni"))
_MANY_TOKENS = 300
DTYPES = [torch.float32, *([torch.bfloat16] if BFLOAT16 else [])]
LIBRARIES = ["built", *(["built_without_bfloat16"] if BFLOAT16 else [])]
"""Fixtures: without bfloat16 of its own, a CPU's library is built without it anyhow."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("native") / "encoder.so"
    library.build(path)
    return library.load(path)


@pytest.fixture(scope="session", params=["-mno-avx512f", "-mno-avx"], ids=["8 floats", "4 floats"])
def built_for_less(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """For CPUs whose registers hold fewer floats than AVX-512's."""
    path = tmp_path_factory.mktemp("native") / "encoder.so"
    library.build(path, request.param)
    return library.load(path)


@pytest.fixture(scope="session", params=["false", "true"], ids=["alone", "in pairs"])
def built_either_way(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """Floats multiplied in pairs and as they are, whichever is faster here."""
    path = tmp_path_factory.mktemp("native") / "encoder.so"
    library.build(path, f"-DSLUICE_PAIRS={request.param}")
    return library.load(path)


@pytest.fixture(scope="session")
def built_without_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("native") / "encoder.so"
    library.build(path, "-mno-avx512bf16")
    return library.load(path)


@pytest.fixture(scope="session")
def minilm_model() -> PreTrainedModel:
    model: PreTrainedModel = AutoModel.from_pretrained(minilm_folder(), dtype=torch.float32).eval()
    return model


def bert(
    heads: int = 2, head_dim: int = 32, intermediate: int = 96, layers: int = 2, vocabulary: int = 90, **more: Any
) -> BertModel:
    torch.manual_seed(1)
    return randomized(
        BertModel(
            BertConfig(
                vocab_size=vocabulary, hidden_size=heads * head_dim, num_attention_heads=heads, num_hidden_layers=layers,
                intermediate_size=intermediate, max_position_embeddings=700, **more,
            )
        )
    )  # fmt: skip


def roberta() -> RobertaModel:
    torch.manual_seed(2)
    return randomized(
        RobertaModel(
            RobertaConfig(
                vocab_size=90, hidden_size=48, num_attention_heads=3, num_hidden_layers=2, intermediate_size=80,
                max_position_embeddings=700, type_vocab_size=1, pad_token_id=1,
            )
        )
    )  # fmt: skip


def distilbert() -> DistilBertModel:
    torch.manual_seed(3)
    return randomized(
        DistilBertModel(
            DistilBertConfig(vocab_size=90, dim=64, n_heads=4, n_layers=2, hidden_dim=112, max_position_embeddings=700)
        )
    )


def mpnet() -> MPNetModel:
    torch.manual_seed(4)
    return randomized(
        MPNetModel(
            MPNetConfig(
                vocab_size=90, hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=80,
                max_position_embeddings=700,
            )
        )
    )  # fmt: skip


def randomized(model: Any) -> Any:
    """With weights of a trained model's size, so that attention and activations are far from linear."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Of a bias of scores as large as scores are.
            weight.normal_(0.0, 2.0 if "relative" in name else 0.3)
            if name.endswith("LayerNorm.weight") or "layer_norm.weight" in name:
                weight.add_(1.0)
    return model.eval()


def rows_of(lengths: list[int], vocabulary: int = 90) -> Batch:
    ids = np.random.default_rng(len(lengths) + sum(lengths)).integers(5, vocabulary, sum(lengths), dtype=np.int32)
    return Batch(ids, np.array(lengths, dtype=np.int32), max(lengths), len(lengths))


def one_by_one(model: PreTrainedModel, asked: Batch) -> torch.Tensor:
    """Token states by transformers, one row after the other."""
    rows = torch.from_numpy(asked.token_ids.astype(np.int64)).split(asked.lengths.tolist())
    with torch.inference_mode():
        return torch.cat([model(input_ids=row[None]).last_hidden_state[0] for row in rows]).float()


def encoder(library: Any, model: PreTrainedModel, threads: int = 2, dtype: torch.dtype | None = None) -> NativeEncoder:
    first_position = 2 if isinstance(model, RobertaModel | MPNetModel) else 0
    return NativeEncoder(library, architecture.read(model, first_position), threads, dtype)


def token_states(served: NativeEncoder, asked: Batch) -> torch.Tensor:
    served(asked, np.ones(len(asked.token_ids), dtype=np.float32))
    return torch.from_numpy(served.token_states(len(asked.token_ids)))


def error(states: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square."""
    return float((states - expected).square().mean().sqrt())


def assert_same(
    library: Any,
    model: PreTrainedModel,
    lengths: list[int],
    *,
    dtype: torch.dtype = torch.float32,
    threads: int = 2,
) -> None:
    # Of a few tokens it is chance whose roundings are nearer: the same lengths again and again, then.
    repeated = 1 if dtype == torch.float32 else -(-_MANY_TOKENS // sum(lengths))
    asked = rows_of(lengths * repeated, model.config.vocab_size)
    expected = one_by_one(model, asked)
    served = copy.deepcopy(model).to(dtype)
    engine = encoder(library, served, threads)
    states = token_states(engine, asked).clone()
    if dtype == torch.float32:
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)
    else:
        assert error(states, expected) <= 1.2 * error(one_by_one(served, asked), expected)
        once = Batch(asked.token_ids[: sum(lengths)], asked.lengths[: len(lengths)], asked.bucket, len(lengths))
        torch.testing.assert_close(token_states(engine, once), states[: sum(lengths)], rtol=0, atol=1e-5)


LENGTHS = [[1], [1, 1, 1], [7, 64, 1, 33], [512], [600, 3], [20] * 40, list(range(1, 40))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [bert, roberta, distilbert, mpnet])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)}-rows-{sum(lengths)}-tokens")
def test_each_family_is_what_transformers_computes(
    built: Any, make: Callable[[], PreTrainedModel], lengths: list[int], dtype: torch.dtype
) -> None:
    assert_same(built, make(), lengths, dtype=dtype)


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 5),
    head_dim=st.sampled_from([16, 32, 48, 64, 80]),
    intermediate=st.integers(1, 20).map(lambda count: 16 * count),
    activation=st.sampled_from(["gelu", "relu"]),
    lengths=st.lists(st.integers(1, 130), min_size=1, max_size=9),
    threads=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
)
def test_any_sizes_are_what_transformers_computes(
    built: Any,
    heads: int,
    head_dim: int,
    intermediate: int,
    activation: str,
    lengths: list[int],
    threads: int,
    dtype: torch.dtype,
) -> None:
    model = bert(heads, head_dim, intermediate, layers=1, hidden_act=activation)
    assert_same(built, model, lengths, dtype=dtype, threads=threads)


@pytest.mark.parametrize("make", [bert, mpnet])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)}-rows-{sum(lengths)}-tokens")
def test_a_cpu_without_avx512_computes_the_same(
    built_for_less: Any, make: Callable[[], PreTrainedModel], lengths: list[int]
) -> None:
    assert_same(built_for_less, make(), lengths)


@pytest.mark.parametrize("dtype", DTYPES)
def test_minilm_is_what_transformers_computes(built: Any, minilm_model: PreTrainedModel, dtype: torch.dtype) -> None:
    assert_same(built, minilm_model, [3, 64, 200, 17, 1, 90], dtype=dtype)


def test_more_words_than_products_are_kept_of_are_what_transformers_computes(built: Any) -> None:
    assert_same(built, bert(heads=12, layers=1, vocabulary=60_000), [7, 64, 1, 133])


@pytest.mark.parametrize("make", [bert, roberta, distilbert, mpnet])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)}-rows-{sum(lengths)}-tokens")
def test_floats_in_pairs_and_alone_are_what_transformers_computes(
    built_either_way: Any, make: Callable[[], PreTrainedModel], lengths: list[int]
) -> None:
    assert_same(built_either_way, make(), lengths)


def times_as_far_from_float64_as_torch(library: Any, model: PreTrainedModel) -> float:
    asked = rows_of([31, 64, 5, 1, 300, 12, 80, 45, 101, 77], 30000)
    exact = one_by_one(copy.deepcopy(model).double(), asked)
    states = token_states(encoder(library, model), asked)
    return error(states, exact) / error(one_by_one(model, asked), exact)


def test_float32_comes_as_near_to_float64_as_sums_of_floats_do(
    built_either_way: Any, minilm_model: PreTrainedModel
) -> None:
    assert times_as_far_from_float64_as_torch(built_either_way, minilm_model) <= 2.5


@pytest.mark.parametrize("larger", [20, 60])
def test_inputs_that_are_far_larger_than_others_cost_little_of_that(
    built_either_way: Any, minilm_model: PreTrainedModel, larger: int
) -> None:
    with_outliers = copy.deepcopy(minilm_model)
    with torch.no_grad():
        for name, weight in with_outliers.named_parameters():
            if "LayerNorm" in name:
                weight[[20, 100, 183, 300]] *= larger
    assert times_as_far_from_float64_as_torch(built_either_way, with_outliers) <= 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_and_the_neighbours_change_nothing(
    built_either_way: Any, minilm_model: PreTrainedModel, dtype: torch.dtype
) -> None:
    asked = rows_of([31, 64, 5, 1, 300, 12, 80, 45], 30000)
    served = copy.deepcopy(minilm_model).to(dtype)
    one, two = encoder(built_either_way, served, 1), encoder(built_either_way, served, 2)
    together = token_states(one, asked).clone()
    assert torch.equal(token_states(two, asked), together)
    for length, end in zip(asked.lengths, np.cumsum(asked.lengths), strict=True):
        alone = Batch(asked.token_ids[end - length : end], np.array([length]), int(length), 1)
        assert torch.equal(token_states(two, alone), together[end - length : end])


def test_more_tokens_than_are_computed_at_a_time(built: Any) -> None:
    assert_same(built, bert(), [100] * 90)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 130), min_size=1, max_size=50), threads=st.integers(1, 3), seed=st.integers(0))
def test_each_row_is_the_sum_of_its_own_states_by_their_weights(
    built: Any, lengths: list[int], threads: int, seed: int
) -> None:
    asked = rows_of(lengths)
    weights = np.random.default_rng(seed).choice(np.array([0, 1, 2], dtype=np.float32), len(asked.token_ids))
    served = encoder(built, bert(), threads)
    summed = served(asked, weights)
    weighted = served.token_states(len(asked.token_ids)) * weights[:, None]
    expected = np.add.reduceat(weighted, np.cumsum(asked.lengths) - asked.lengths)
    np.testing.assert_allclose(summed.sums, expected, rtol=1e-5, atol=1e-4)
    assert summed.computed_tokens == sum(lengths)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooled", [0, -1], ids=["first", "last"])
def test_one_token_of_each_row_is_the_same_whether_or_not_the_others_are_pooled(
    built: Any, pooled: int, dtype: torch.dtype
) -> None:
    asked = rows_of([1, 130, 7, 64, 300, 2])
    served = encoder(built, bert().to(dtype))
    ends = np.cumsum(asked.lengths)
    places = ends - asked.lengths if pooled == 0 else ends - 1
    expected = token_states(served, asked)[places].clone()
    weights = np.zeros(len(asked.token_ids), dtype=np.float32)
    weights[places] = 1
    np.testing.assert_allclose(served(asked, weights).sums, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [[5], [130] * 9], ids=["shared by all threads", "in blocks"])
def test_of_rows_of_which_nothing_is_pooled_the_sums_are_zeros(
    built_either_way: Any, lengths: list[int], dtype: torch.dtype
) -> None:
    asked = rows_of(lengths)
    sums = encoder(built_either_way, bert().to(dtype))(asked, np.zeros(len(asked.token_ids), dtype=np.float32)).sums
    np.testing.assert_array_equal(sums, np.zeros_like(sums))


def test_a_state_without_weight_adds_nothing_even_where_it_is_not_a_number(built: Any) -> None:
    model = bert()
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7] = float("nan")
        for layer in model.encoder.layer:
            layer.attention.output.dense.weight.zero_()
            layer.attention.self.value.weight.zero_()
    served = encoder(built, model)
    asked = Batch(np.array([5, 7, 6], dtype=np.int32), np.array([1, 1, 1], dtype=np.int32), 1, 3)
    sums = served(asked, np.array([1, 0, 1], dtype=np.float32)).sums
    assert np.isfinite(sums).all()
    assert (sums[1] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_word_that_is_not_a_number_spoils_its_own_row_and_no_other(built: Any, dtype: torch.dtype) -> None:
    asked = rows_of([30, 7, 21, 100, 64, 55, 90])
    asked.token_ids[asked.token_ids == 7] = 8
    expected = encoder(built, bert().to(dtype))(asked, np.ones(len(asked.token_ids), dtype=np.float32)).sums
    model = bert().to(dtype)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7] = float("nan")
    asked.token_ids[40] = 7
    sums = encoder(built, model)(asked, np.ones(len(asked.token_ids), dtype=np.float32)).sums
    assert np.isnan(sums[2]).any()
    np.testing.assert_allclose(np.delete(sums, 2, axis=0), np.delete(expected, 2, axis=0), rtol=0, atol=1e-3)


def test_what_is_outside_the_tables_is_an_error(built: Any) -> None:
    served = encoder(built, bert())
    for ids in ([5, 90], [5, -1]):
        asked = Batch(np.array(ids, dtype=np.int32), np.array([2], dtype=np.int32), 2, 1)
        with pytest.raises(IndexError, match=f"ids {min(ids)} to {max(ids)}: expected 0 to 89"):
            token_states(served, asked)
    with pytest.raises(IndexError, match="rows of 3 to 701 tokens: expected 1 to 700"):
        token_states(served, rows_of([3, 701]))
    with pytest.raises(IndexError, match="rows of 3 to 699 tokens: expected 1 to 698"):
        token_states(encoder(built, roberta()), rows_of([3, 699]))


def with_another_weight() -> PreTrainedModel:
    model = bert()
    model.encoder.layer[0].gate = torch.nn.Linear(2, 2)
    return model


def without_a_layer() -> PreTrainedModel:
    model = bert()
    del model.encoder.layer[1]
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: bert(hidden_act="gelu_new"), "activation 'gelu_new'; expected gelu or relu"),
        (lambda: bert(head_dim=24), "head_dim 24: expected a multiple of 16"),
        (lambda: bert(intermediate=100), "intermediate size 100: expected a multiple of 16"),
        (lambda: bert(is_decoder=True), "is_decoder is True"),
        (lambda: bert().half(), "weights in torch.float16"),
        (with_another_weight, r"has also encoder.layer.0.gate.bias"),
        (without_a_layer, r"lacks encoder.layer.1.attention"),
    ],
)
def test_what_is_not_known_for_certain_is_refused(make: Callable[[], PreTrainedModel], reason: str) -> None:
    with pytest.raises(architecture.UnknownArchitectureError, match=reason):
        architecture.read(make(), 0)


def test_another_class_of_model_is_refused() -> None:
    class BertModel(PreTrainedModel):  # type: ignore[no-untyped-call]
        """Not transformers' own."""

        config_class = BertConfig

    with pytest.raises(architecture.UnknownArchitectureError, match="BertModel is none of BertModel, RobertaModel"):
        architecture.read(BertModel(BertConfig()), 0)


def load(cache: Path, dtype: str, *, compile: bool, **more: Any) -> Backend:  # noqa: A002 - the setting's name
    config = ModelConfig(
        str(minilm_folder()), cache_dir=str(cache), dtype=dtype, layout="packed", compile=compile, **more
    )
    return load_model(config, lambda *_: None).backend


@pytest.mark.parametrize("dtype", [str(dtype).removeprefix("torch.") for dtype in DTYPES])
def test_a_server_takes_the_engine_when_it_is_built_and_from_then_on_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str
) -> None:
    caplog.set_level(logging.INFO)
    plain = load(tmp_path / "unused", "float32", compile=False)
    first = load(tmp_path, dtype, compile=True)
    deadline = time.monotonic() + 120
    while first.execution != "native":
        assert "is not used" not in caplog.text
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.05)
    again = load(tmp_path, dtype, compile=True)
    assert again.execution == "native", "what the cache holds is taken at once"
    asked = rows_of([1, 37, 200, 5], 30000)
    expected = torch.from_numpy(plain.embed(asked).embeddings)
    for backend in (first, again):
        given_back = backend.embed(asked)
        assert given_back.computed_tokens == 243, "nothing is filled up"
        cosine = F.cosine_similarity(torch.from_numpy(given_back.embeddings), expected)
        assert float(cosine.min()) >= (0.9999 if dtype == "bfloat16" else 0.999999)
    assert [path.suffix for path in (tmp_path / "native").iterdir()] == [".so"], "nothing else is left behind"


def attempt(refusal: str | None = None, dtype: torch.dtype = torch.float32) -> upgrade.Attempt:
    """Refused for that reason; without one, nothing must come as far as that."""
    return upgrade.Attempt(dtype, lambda _: refusal or pytest.fail("an engine was offered"))


def test_what_the_engine_refuses_goes_the_other_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    went: list[str] = []
    upgrade.begin(bert(hidden_act="gelu_new"), 0, str(tmp_path), [attempt()], lambda: went.append("other"))
    assert went == ["other"]
    assert "is not used: activation 'gelu_new'" in caplog.text


def test_without_a_compiler_it_goes_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    went = threading.Event()
    upgrade.begin(bert(), 0, str(tmp_path), [attempt()], went.set)
    assert went.wait(30)
    assert "is not used: no g++ on the PATH" in caplog.text


def test_a_tight_memory_limit_goes_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 << 28)
    went = threading.Event()
    upgrade.begin(bert(), 0, str(tmp_path), [attempt()], went.set)
    assert went.wait(30)
    assert "g++ needs 384 MiB and the memory limit leaves 256" in caplog.text


def test_an_engine_whose_weights_are_more_than_the_memory_limit_leaves_goes_the_other_way(
    tmp_path: Path, built: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They were packed all the same, and the kernel ended the server, at each start anew."""
    path = library.locate(str(tmp_path))
    path.parent.mkdir()
    path.symlink_to(built._name)
    monkeypatch.setattr(memory, "free_bytes", lambda: 70 << 20)
    went: list[str] = []
    upgrade.begin(bert(8, 64, 2048, layers=3), 0, str(tmp_path), [attempt()], lambda: went.append("other"))
    assert went == ["other"]
    assert "not used in float32: its weights take 36 MiB and the memory limit leaves 6; raise the limit" in caplog.text


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_that_just_fit_are_taken(built: Any, dtype: torch.dtype) -> None:
    model = bert(3, 32, 144).to(dtype)
    fitting = 2 * (4 * 96 * 96 + 2 * 96 * 144) * dtype.itemsize
    asked = rows_of([7, 60, 1])
    served = NativeEncoder(built, architecture.read(model, 0), 2, dtype, fitting)
    cosine = F.cosine_similarity(token_states(served, asked), one_by_one(model, asked))
    assert float(cosine.min()) >= (0.999 if dtype == torch.bfloat16 else 0.999999)
    with pytest.raises(RuntimeError, match="its weights take 0 MiB and the memory limit leaves 0; raise the limit"):
        NativeEncoder(built, architecture.read(model, 0), 2, dtype, fitting - 1)


def test_the_first_layers_products_are_kept_only_where_they_fit_beside_the_weights(built: Any) -> None:
    """What is looked up is rounded elsewhere than what is multiplied, which tells them apart."""
    model, asked = bert(3, 32, 144), rows_of([7, 60, 1])
    fitting = 4 * (2 * (4 * 96 * 96 + 2 * 96 * 144) + (90 + 700) * 3 * 96)
    without_limit, just_enough, too_little = (
        token_states(NativeEncoder(built, architecture.read(model, 0), 2, torch.float32, room), asked).clone()
        for room in (None, fitting, fitting - 1)
    )
    assert torch.equal(just_enough, without_limit)
    assert not torch.equal(too_little, without_limit)


def test_a_damaged_library_goes_the_other_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = library.locate(str(tmp_path))
    path.parent.mkdir()
    path.write_bytes(b"not a library")
    went: list[str] = []
    upgrade.begin(bert(), 0, str(tmp_path), [attempt()], lambda: went.append("other"))
    assert went == ["other"]
    assert "is not used" in caplog.text


def test_an_engine_that_computes_something_else_goes_the_other_way(
    tmp_path: Path, built: Any, caplog: pytest.LogCaptureFixture
) -> None:
    del built
    library.build(library.locate(str(tmp_path)))
    went: list[str] = []
    upgrade.begin(bert(), 0, str(tmp_path), [attempt("its embeddings differ")], lambda: went.append("other"))
    assert went == ["other"]
    assert "is not used in float32: its embeddings differ" in caplog.text


@pytest.mark.skipif(not INT8, reason="the CPU multiplies no bytes")
@pytest.mark.parametrize("library_of", LIBRARIES)
@pytest.mark.parametrize("make", [bert, roberta, distilbert, mpnet])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)}-rows-{sum(lengths)}-tokens")
def test_bytes_come_near_to_what_transformers_computes(
    request: pytest.FixtureRequest, library_of: str, make: Callable[[], PreTrainedModel], lengths: list[int]
) -> None:
    model, asked = make(), rows_of(lengths)
    states = token_states(encoder(request.getfixturevalue(library_of), model, dtype=torch.int8), asked)
    cosine = F.cosine_similarity(states, one_by_one(model, asked))
    assert float(cosine.mean()) >= 0.99


@pytest.mark.skipif(not INT8, reason="the CPU multiplies no bytes")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantization_is_taken_where_it_is_near_enough(tmp_path: Path, dtype: str) -> None:
    library.build(library.locate(str(tmp_path)))
    plain = load(tmp_path, "float32", compile=False)
    served = load(tmp_path, dtype, compile=True, quantization="int8")
    assert served.execution == "native-int8"
    asked = rows_of([1, 37, 200, 5], 30000)
    cosine = F.cosine_similarity(*(torch.from_numpy(one.embed(asked).embeddings) for one in (plain, served)))
    assert 0.99 <= float(cosine.min()) < 0.99999


@pytest.mark.skipif(not INT8, reason="the CPU multiplies no bytes")
def test_quantization_that_is_too_far_from_float32_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library.build(library.locate(str(tmp_path)))
    monkeypatch.setattr(execution, "FAITHFUL_COSINE", 0.99999)
    served = load(tmp_path, "float32", compile=True, quantization="int8")
    assert served.execution == "native", "the next best is taken"
    assert "is not used in int8: its embeddings differ from float32's (cosine 0.99" in caplog.text


def test_quantization_without_the_engine_is_said_to_be_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(tmp_path, "float32", compile=False, quantization="int8").execution == "eager"
    assert "QUANTIZATION=int8 is not used" in caplog.text
    upgrade.begin(bert(hidden_act="gelu_new"), 0, str(tmp_path), [attempt(dtype=torch.int8)], lambda: None)
    assert "not used, and so no int8: activation 'gelu_new'" in caplog.text


def test_a_precision_without_instructions_is_refused(built_for_less: Any) -> None:
    for dtype in (torch.bfloat16, torch.int8):
        with pytest.raises(RuntimeError, match=f"this CPU has no instructions for {dtype}"):
            encoder(built_for_less, bert(), dtype=dtype)


def test_the_compiler_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(cpp.BuildError, match=r"g\+\+ ended with 1: .*unrecognized"):
        library.build(tmp_path / "encoder.so", "-fno-such-flag")
    assert list(tmp_path.iterdir()) == []


WHICH_OPENMP = """
import sys
from pathlib import Path
from sluice_server.model.native import library
library.load(Path(sys.argv[1]))
for line in {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}:
    print(line)
"""


def test_the_library_uses_torchs_own_threads(built: Any) -> None:
    """Asked of a process that has loaded nothing else: other libraries of the tests bring an OpenMP of their own."""
    command = [sys.executable, "-c", WHICH_OPENMP, built._name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.split()) == 1, "a second pool of threads would wait beside the first"


ENDS_WHILE_IT_COMPUTES = """
import sys, threading
from pathlib import Path
import numpy as np
from sluice_server.model.native import library
from tests.server.model.test_native import bert, encoder, rows_of
served, asked, begun = encoder(library.load(Path(sys.argv[1])), bert(layers=20)), rows_of([600] * 6), threading.Event()
def compute():
    while True:
        served(asked, np.ones(3600, dtype=np.float32))
        begun.set()
threading.Thread(target=compute, daemon=True).start()
begun.wait()
"""


def test_a_process_may_end_while_another_thread_computes(built: Any) -> None:
    """The weights were let go under the batch."""
    command = [sys.executable, "-c", ENDS_WHILE_IT_COMPUTES, built._name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
