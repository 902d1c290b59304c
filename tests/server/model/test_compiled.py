"""Compiled models: the same embeddings, made once, kept, swapped in while the server serves."""

import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sluice_server.backend import Backend, Batch
from sluice_server.model import ModelConfig, grid, load_model, packed
from sluice_server.model.attention import packed_attention
from sluice_server.model.compiled import artifact, library, memory, upgrade
from sluice_server.model.compiled.artifact import Recipe
from sluice_server.model.native import architecture
from transformers import PreTrainedModel

from tests.server.conftest import minilm_folder

RECIPE = Recipe(str(minilm_folder()), "float32", 2, trust_remote_code=False, allow_pickle=False)


@pytest.fixture(autouse=True)
def _no_model_is_known_to_the_native_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """MiniLM would be, and then nothing is compiled."""

    def refuse(*_: object) -> None:
        raise architecture.UnknownArchitectureError("refused by the test")

    monkeypatch.setattr(architecture, "read", refuse)


@pytest.fixture(scope="session")
def operators(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("operators") / "operators.so"
    library.build(path)
    library.load(path)


def packed_heads(lengths: list[int], heads: int, kv_heads: int, width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Query, key and value as a model's layers hand them over, and cu_seqlens."""
    random = torch.Generator().manual_seed(7)
    tokens = sum(lengths)
    states = [
        torch.randn(tokens, count * width, generator=random).to(dtype).view(tokens, count, width).transpose(0, 1)
        for count in (heads, kv_heads, kv_heads)
    ]
    return [*states, torch.tensor([0, *np.cumsum(lengths)])]


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [0, 1, 9, 200])
@pytest.mark.parametrize(
    ("lengths", "heads", "kv_heads", "width"),
    [([1], 1, 1, 16), ([5, 16, 17, 64], 3, 3, 32), ([128, 129, 300], 4, 2, 64), ([6, 1, 31, 2], 2, 1, 48)],
    ids=["one-token", "short", "long-grouped", "odd-width"],
)
def test_the_operator_is_the_reference(
    lengths: list[int], heads: int, kv_heads: int, width: int, window: int, dtype: torch.dtype
) -> None:
    query, key, value, ends = packed_heads(lengths, heads, kv_heads, width, dtype)
    expected = packed_attention(query.float(), key.float(), value.float(), ends, width**-0.5, window)
    computed = torch.ops.sluice_native.packed_attention(query, key, value, ends, width**-0.5, window)
    assert computed.dtype == dtype
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(computed.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("operators")
def test_very_large_scores_give_finite_weights() -> None:
    query, key, value, ends = packed_heads([40], 1, 1, 16, torch.float32)
    computed = torch.ops.sluice_native.packed_attention(1e4 * query, 1e4 * key, value, ends, 1.0, 0)
    best = (query[0] @ key[0].T).argmax(1)
    torch.testing.assert_close(computed[:, 0], value[0][best])


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("best", [0, 150, 299], ids=["first", "middle", "last"])
@pytest.mark.parametrize("window", [0, 100])
def test_wherever_the_best_keys_are_all_others_weigh_as_much_less(best: int, window: int) -> None:
    query, key, value, ends = packed_heads([300], 1, 1, 16, torch.float32)
    query, key = query.abs(), key.abs()
    key *= 1 - (torch.arange(300) - best).abs()[:, None] / 300
    expected = packed_attention(query, key, value, ends, 4.0, window)
    computed = torch.ops.sluice_native.packed_attention(query, key, value, ends, 4.0, window)
    torch.testing.assert_close(computed, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.usefixtures("operators")
def test_heads_that_are_no_whole_vectors_are_refused() -> None:
    query, key, value, ends = packed_heads([4], 1, 1, 24, torch.float32)
    with pytest.raises(RuntimeError, match="head_dim 24: expected a multiple of 16"):
        torch.ops.sluice_native.packed_attention(query, key, value, ends, 1.0, 0)


def test_the_key_changes_with_what_the_artifact_is_made_of(tmp_path: Path) -> None:
    def key(**changes: object) -> str:
        return artifact.key(replace(recipe, **changes))

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    recipe = replace(RECIPE, folder=str(tmp_path))
    before = key()
    assert key() == before
    assert before not in {key(dtype="bfloat16"), key(threads=3)}
    (tmp_path / "model.safetensors").write_bytes(b"others!")
    assert key() != before


def test_who_publishes_second_leaves_the_first_ones(tmp_path: Path) -> None:
    published = artifact.Artifact(tmp_path / "key")
    for number in ("first", "second"):
        made = tmp_path / number
        made.mkdir()
        (made / "forward.pt2").write_text(number)
        artifact.publish(made, published)
    assert published.package.read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"]


def test_the_memory_left_below_the_limit(tmp_path: Path) -> None:
    assert memory.free_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.stat").write_text("anon 80\ninactive_file 150\nactive_file 70\n")
    assert memory.free_bytes(tmp_path) == 850, "files that nobody uses now are given up"


def test_the_memory_left_below_the_limit_by_cgroup_version_1(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("300\n")
    (tmp_path / "memory" / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 150\n")
    assert memory.free_bytes(tmp_path) is None, "it has no word for none"
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000\n")
    assert memory.free_bytes(tmp_path) == 850


def test_a_tight_memory_limit_keeps_the_model_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 << 30)
    upgrade.begin(RECIPE, str(tmp_path), lambda _: pytest.fail("nothing was made"))
    assert "compiling needs 1536 MiB and the memory limit leaves 1024" in caplog.text
    assert list(tmp_path.iterdir()) == []


def batches() -> list[Batch]:
    random = np.random.default_rng(3)
    made = []
    for lengths in ([1], [3, 7, 200], list(range(1, 60)), [256] * 3):
        ids = random.integers(1000, 30000, sum(lengths)).astype(np.int32)
        made.append(Batch(ids, np.array(lengths, dtype=np.int32), 256, len(lengths)))
    return made


def load(cache: Path, *, compile: bool) -> Backend:  # noqa: A002 - the setting's name
    config = ModelConfig(str(minilm_folder()), cache_dir=str(cache), dtype="float32", layout="packed", compile=compile)
    return load_model(config, lambda *_: None).backend


def wait_until_compiled(backend: Backend, caplog: pytest.LogCaptureFixture, within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    while backend.execution != "compiled":
        assert "stays uncompiled" not in caplog.text
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.2)


@pytest.mark.timeout(900)
def test_a_compiled_model_is_made_once_and_gives_the_same_embeddings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plain = load(tmp_path / "unused", compile=False)
    first = load(tmp_path, compile=True)
    assert (plain.execution, first.execution) == ("eager", "eager"), "a server does not wait for the compiler"
    wait_until_compiled(first, caplog, within_seconds=840)

    again = load(tmp_path, compile=True)
    assert again.execution == "compiled", "what the cache holds is taken at once"
    for batch in batches():
        expected = plain.embed(batch).embeddings
        for backend in (first, again):
            np.testing.assert_allclose(backend.embed(batch).embeddings, expected, atol=2e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["compiled"]
    assert len(list((tmp_path / "compiled").iterdir())) == 1, "nothing intermediate is left behind"


def test_an_artifact_that_computes_something_else_is_not_taken(tmp_path: Path) -> None:
    backend = load(tmp_path, compile=False)
    refusal = backend.adopt_compiled(lambda ids, *_: torch.randn(len(ids), 384), batches()[1])  # type: ignore[attr-defined]
    assert "its embeddings differ from the loaded model's" in refusal
    assert backend.execution == "eager"


def test_a_forward_meets_every_size_before_traffic_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eager, made = packed.eager, list[packed.Forward]()

    def noted(model: PreTrainedModel) -> packed.Forward:
        made.append(eager(model))
        return made[-1]

    monkeypatch.setattr(packed, "eager", noted)
    backend = load(tmp_path, compile=False)
    loaded, met = made[-1], list[int]()

    def forward(ids: torch.Tensor, positions: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        met.append(len(ids))
        assert backend.execution == "eager"
        return loaded(ids, positions, cu_seqlens)

    probe = batches()[0]
    assert backend.adopt_compiled(forward, probe) is None  # type: ignore[attr-defined]
    assert backend.execution == "compiled"
    rehearsed = met[1:]
    assert rehearsed == list(grid.sizes(rehearsed[-1]))
    assert len(rehearsed) > 10


def test_a_damaged_artifact_leaves_the_model_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = replace(RECIPE, threads=torch.get_num_threads())
    damaged = artifact.locate(recipe, str(tmp_path))
    damaged.folder.mkdir(parents=True)
    damaged.library.write_bytes(b"not a library")
    assert load(tmp_path, compile=True).execution == "eager"
    assert "the model stays uncompiled" in caplog.text


def test_the_job_ends_with_the_server_that_wants_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sluice_server.model.compiled.job", json.dumps({
        "folder": str(minilm_folder()), "dtype": "float32", "threads": 1, "trust_remote_code": False, "allow_pickle": False,
    }), str(tmp_path)]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 1
    assert not artifact.locate(replace(RECIPE, threads=1), str(tmp_path)).exists
