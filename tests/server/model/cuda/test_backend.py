"""The GPU's path, computed on the CPU without graphs: the same embeddings, for each row alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sluice_server.backend import Batch, DeviceLostError, LaunchingBackend, OutOfDeviceMemoryError
from sluice_server.model.cuda import backend as module
from sluice_server.model.cuda import shapes
from sluice_server.model.cuda.backend import Limits
from sluice_server.model.cuda.shapes import Shape
from sluice_server.model.pooling import Pooling

from tests.server.model.conftest import VOCAB_SIZE, cosines, load, random_batch, rows_of
from tests.server.model.cuda.conftest import LIMITS, PACKED, POSITIONS, graph_backend

Folders = Callable[[str], Path]
BOUNDARIES = (16, 64, 128, 256)


@pytest.mark.parametrize("family", PACKED)
def test_embeddings_equal_the_padded_layouts(family_folder: Folders, family: str) -> None:
    batch = random_batch()
    padded = load(family_folder(family), layout="padded").backend.embed(batch)
    np.testing.assert_allclose(
        graph_backend(family_folder(family)).embed(batch).embeddings, padded.embeddings, atol=1e-5
    )


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close_to_float32(family_folder: Folders, family: str, dtype: str) -> None:
    batch = random_batch()
    exact = load(family_folder(family), layout="padded").backend.embed(batch)
    ours = graph_backend(family_folder(family), dtype=dtype).embed(batch)
    assert cosines(ours.embeddings, exact.embeddings).min() > 0.999


@pytest.mark.parametrize("family", PACKED)
def test_no_row_sees_its_neighbours(family_folder: Folders, family: str) -> None:
    backend = graph_backend(family_folder(family))
    first, other = random_batch(seed=1), random_batch(seed=2)
    kept = 3
    rows = [*rows_of(other)[:kept], rows_of(first)[kept], *rows_of(other)[kept + 1 :]]
    mixed = Batch(np.concatenate(rows), first.lengths, first.bucket, first.rows)
    ours, theirs = backend.embed(first).embeddings, backend.embed(mixed).embeddings
    np.testing.assert_allclose(ours[kept], theirs[kept], atol=1e-5)
    assert np.abs(ours[0] - theirs[0]).max() > 1e-3, "the neighbours did change"


@pytest.mark.parametrize("family", ["modernbert", "roberta"])
def test_a_row_is_the_same_in_every_shape(family_folder: Folders, family: str) -> None:
    backend = graph_backend(family_folder(family))
    row = random_batch((20,))
    alone = backend.embed(row)
    beside = random_batch((100, 160, 160))
    together = Batch(
        np.concatenate([row.token_ids, beside.token_ids]), np.concatenate([row.lengths, beside.lengths]), 256, 4
    )
    computed = backend.embed(together)
    assert computed.computed_tokens > alone.computed_tokens
    np.testing.assert_allclose(computed.embeddings[0], alone.embeddings[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "cls", "last"])
@pytest.mark.parametrize("excluded", [(), range(VOCAB_SIZE // 2), range(VOCAB_SIZE)], ids=["none", "half", "all"])
def test_rows_are_pooled_as_poolings_own(family_folder: Folders, kind: str, excluded: range) -> None:
    pooling = Pooling(kind, excluded, VOCAB_SIZE)
    batch = random_batch()
    backend = graph_backend(family_folder("bert"), pooling=pooling)
    ours = backend.embed(batch).embeddings
    ends = torch.from_numpy(np.append(0, np.cumsum(batch.lengths)))
    ids = torch.from_numpy(batch.token_ids).long()
    places = torch.arange(len(ids)) - torch.repeat_interleave(ends[:-1], ends.diff())
    bounds = torch.stack([one.repeat_interleave(ends.diff()) for one in (ends[:-1], ends[1:])]).int()
    with torch.inference_mode():
        states = backend._forward._model(
            input_ids=ids[None], position_ids=places[None], row_bounds=bounds
        ).last_hidden_state[0]
    weights, totals = pooling.weights(batch.token_ids, batch.lengths)
    expected = np.add.reduceat(states.numpy() * weights[:, None], ends[:-1]) / totals
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_what_is_computed_is_the_shapes_tokens(family_folder: Folders) -> None:
    assert graph_backend(family_folder("bert")).embed(random_batch((5, 60))).computed_tokens == 128


def test_a_batch_at_the_limits_is_computed(family_folder: Folders) -> None:
    output = graph_backend(family_folder("bert"), limits=Limits(64, 3)).embed(random_batch((POSITIONS,)))
    assert output.embeddings.shape == (1, 32)


def test_a_batch_of_more_rows_than_a_shape_has_is_computed_as_it_is(family_folder: Folders) -> None:
    lengths = (2,) * (LIMITS.rows + 1)
    output = graph_backend(family_folder("bert")).embed(random_batch(lengths))
    assert output.embeddings.shape == (17, 32)


def test_a_batch_beyond_the_limits_is_refused(family_folder: Folders) -> None:
    with pytest.raises(ValueError, match="1040 tokens in 104 rows; expected at most 1000 in "):
        graph_backend(family_folder("bert")).embed(random_batch((10,) * 104))


def test_two_batches_are_under_way_and_a_third_waits_for_one_of_them(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_SECONDS", 0.01)
    backend, batch = graph_backend(family_folder("bert")), random_batch()
    first, _ = backend.launch(batch), backend.launch(batch)
    with pytest.raises(DeviceLostError):
        backend.launch(batch)
    first.wait()
    assert backend.launch(batch).wait().embeddings.shape == (7, 32)


def test_a_result_outlives_the_batches_after_it(family_folder: Folders) -> None:
    backend = graph_backend(family_folder("bert"))
    first = backend.embed(random_batch(seed=1)).embeddings
    kept = first.copy()
    for seed in range(2, 5):
        backend.embed(random_batch(seed=seed))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("raised", "seen"), [(torch.OutOfMemoryError("full"), OutOfDeviceMemoryError), (ValueError("broken"), ValueError)]
)
def test_a_launch_that_fails_gives_its_slot_back(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch, raised: Exception, seen: type[Exception]
) -> None:
    backend, batch = graph_backend(family_folder("bert")), random_batch()

    def fail(_: object) -> None:
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(backend._graphs, "compute", fail)
        for _ in range(3):
            with pytest.raises(seen):
                backend.launch(batch)
    assert backend.embed(batch).embeddings.shape == (7, 32)


def test_the_warm_up_brings_each_shape_the_largest_first(family_folder: Folders) -> None:
    backend = graph_backend(family_folder("bert"))
    filling = backend.warm_up_batches(BOUNDARIES)[: len(backend._shapes)]
    assert [shapes.fit(backend._shapes, batch) for batch in filling] == list(reversed(backend._shapes))
    assert [batch.useful_tokens for batch in filling] == list(reversed(backend.token_steps))
    assert filling[0].useful_tokens == 1000


def test_the_warm_up_shows_what_a_token_costs_in_each_bucket(family_folder: Folders) -> None:
    backend = graph_backend(family_folder("bert"))
    batches = backend.warm_up_batches(BOUNDARIES)
    for bucket, longest in ((16, 16), (64, 64), (128, 128), (256, POSITIONS)):
        ours = [batch for batch in batches if batch.bucket == bucket]
        assert min(batch.useful_tokens for batch in ours) == longest
        assert max(batch.useful_tokens for batch in ours) >= 256
    assert max(len(batch.lengths) for batch in batches) <= LIMITS.rows


def test_a_shape_is_captured_once(family_folder: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = graph_backend(family_folder("bert"))
    captured = []

    def capture(shape: Shape) -> bool:
        captured.append(shape)
        backend._graphs._captured[shape] = (object(), object())
        return True

    monkeypatch.setattr(backend._graphs, "capture", capture)
    monkeypatch.setattr(backend._graphs, "compute", backend._forward)
    for _ in range(2):
        assert backend.prepare(random_batch())
    assert len(captured) == 1


def test_a_shape_that_does_not_fit_the_memory_is_no_reason_not_to_start(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = graph_backend(family_folder("bert"))

    def fail(_: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(backend._graphs, "compute", fail)
    assert not backend.prepare(random_batch())
    assert "a batch of 311 tokens does not fit the device: full" in caplog.text


@pytest.mark.parametrize(("factor", "execution"), [(1.0, "graphs"), (float("nan"), "eager")])
def test_a_graph_that_computes_something_else_is_left_out(
    family_folder: Folders, monkeypatch: pytest.MonkeyPatch, factor: float, execution: str
) -> None:
    backend = graph_backend(family_folder("bert"))

    def capture(shape: Shape) -> bool:
        backend._graphs._captured[shape] = (object(), object())
        monkeypatch.setattr(backend._graphs, "compute", lambda one: backend._forward(one) * factor)
        return True

    monkeypatch.setattr(backend._graphs, "capture", capture)
    assert backend.prepare(random_batch())
    assert backend.execution == execution


def test_without_graphs_it_is_eager_and_says_so(family_folder: Folders) -> None:
    backend = graph_backend(family_folder("bert"))
    assert backend.prepare(random_batch())
    assert (backend.execution, backend.fingerprint()) == ("eager", "f")
    assert isinstance(backend, LaunchingBackend)
