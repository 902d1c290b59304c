"""What only a GPU can show: graphs compute what eager code does, and the host does not wait for them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sluice_server.backend import Batch
from sluice_server.model.cuda import shapes
from sluice_server.model.cuda.backend import GraphBackend, Limits
from sluice_server.model.cuda.streams import _EventMark

from tests.server.model.conftest import cosines, load, random_batch, rows_of
from tests.server.model.cuda.conftest import PACKED, graph_backend

Folders = Callable[[str], Path]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA's graphs and kernels need a GPU")
# Long enough for the host to launch the next batch meanwhile.
LARGE = Limits(tokens=32768, rows=512)


def captured(folder: Path, limits: Limits = LARGE) -> GraphBackend:
    backend = graph_backend(folder, dtype="bfloat16", limits=limits, device="cuda")
    for batch in backend.warm_up_batches((64, 256)):
        assert backend.prepare(batch)
    assert len(backend._graphs) == len(backend._shapes)
    return backend


@pytest.mark.parametrize("family", PACKED)
def test_graphs_compute_what_eager_code_and_float32_do(family_folder: Folders, family: str) -> None:
    folder, batch = family_folder(family), random_batch()
    eager = graph_backend(folder, dtype="bfloat16", device="cuda")
    ours = captured(folder).embed(batch).embeddings
    np.testing.assert_allclose(ours, eager.embed(batch).embeddings, atol=2e-2)
    assert cosines(ours, load(folder, layout="padded", device="cpu").backend.embed(batch).embeddings).min() > 0.999


@pytest.mark.parametrize("family", PACKED)
def test_no_row_sees_its_neighbours_in_a_graph(family_folder: Folders, family: str) -> None:
    backend = captured(family_folder(family))
    first, other = random_batch(seed=1), random_batch(seed=2)
    kept = 3
    rows = [*rows_of(other)[:kept], rows_of(first)[kept], *rows_of(other)[kept + 1 :]]
    mixed = Batch(np.concatenate(rows), first.lengths, first.bucket, first.rows)
    ours, theirs = backend.embed(first).embeddings, backend.embed(mixed).embeddings
    np.testing.assert_array_equal(ours[kept], theirs[kept])
    assert np.abs(ours[0] - theirs[0]).max() > 1e-3, "the neighbours did change"


def test_every_shape_replays_after_every_other(family_folder: Folders) -> None:
    backend = captured(family_folder("modernbert"), Limits(2048, 64))
    batches = backend.warm_up_batches((64, 256))
    assert len({shapes.fit(backend._shapes, batch) for batch in batches}) == len(backend._shapes)
    alone = [backend.embed(batch).embeddings for batch in batches]
    for batch, expected in zip(reversed(batches), reversed(alone), strict=True):
        np.testing.assert_array_equal(backend.embed(batch).embeddings, expected)


@pytest.mark.parametrize("quantization", ["none", "fp8"])
def test_a_model_loads_compiled_and_captured_and_stays_near_float32(
    family_folder: Folders, tmp_path: Path, quantization: str
) -> None:
    folder, batch = family_folder("modernbert"), random_batch()
    backend = load(
        folder, dtype="bfloat16", device="cuda", compile=True, quantization=quantization, cache_dir=str(tmp_path)
    ).backend
    assert isinstance(backend, GraphBackend)
    assert backend.prepare(batch)
    suffix = "" if quantization == "none" else "-fp8"
    assert backend.execution == f"compiled-graphs{suffix}"
    exact = load(folder, layout="padded", device="cpu").backend.embed(batch).embeddings
    assert cosines(backend.embed(batch).embeddings, exact).min() > (0.99 if suffix else 0.999)


def test_a_launch_returns_before_the_batch_is_computed(family_folder: Folders) -> None:
    backend = captured(family_folder("bert"))
    batch = shapes.full_batch(LARGE.tokens, 64, backend.info.vocab_size, (64, 256))
    with backend._queue.entered():
        torch.cuda._sleep(10**9)
    first, second = backend.launch(batch), backend.launch(batch)
    assert isinstance(first.mark, _EventMark)
    assert not first.mark._event.query(), "it waits behind what the device does first"
    np.testing.assert_array_equal(first.wait().embeddings, second.wait().embeddings)
