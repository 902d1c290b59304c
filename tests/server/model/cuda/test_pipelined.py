"""The worker's pipeline with a real model: the GPU's path on the CPU, without graphs."""

import queue
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sluice_server.backend import Batch
from sluice_server.cost import Measurement
from sluice_server.jobs import BatchResult, Job
from sluice_server.model.cuda.backend import GraphBackend
from sluice_server.worker import Worker, WorkerCallbacks

from tests.server.model.conftest import random_batch
from tests.server.model.cuda.conftest import graph_backend

Folders = Callable[[str], Path]
SECONDS = 60


def compute(backend: GraphBackend, batches: list[Batch]) -> tuple[list[tuple[int, BatchResult]], list[Measurement]]:
    """What a worker makes of them, two at once, and the timings of its warm-up."""
    ready: queue.Queue[list[Measurement]] = queue.Queue()
    results: queue.Queue[tuple[int, BatchResult]] = queue.Queue()
    callbacks = WorkerCallbacks(
        on_phase=lambda *_: None,
        on_ready=lambda *told: ready.put(told[2]),
        on_result=lambda *told: results.put(told),
        on_failure=pytest.fail,
    )
    worker = Worker(lambda: backend, lambda _: backend.warm_up_batches((64, 256))[-2:], callbacks)
    worker.start()
    timings, got = ready.get(timeout=SECONDS), []
    for number, batch in enumerate(batches):
        worker.submit(Job(number, batch, lambda _: None))
        if number:
            got.append(results.get(timeout=SECONDS))
    got.append(results.get(timeout=SECONDS))
    worker.stop(SECONDS)
    return got, timings


def test_each_batch_gets_its_own_embeddings_in_order(family_folder: Folders) -> None:
    batches = [random_batch((5 + seed, 40, 1), seed) for seed in range(6)]
    got, _ = compute(graph_backend(family_folder("modernbert")), batches)
    alone = graph_backend(family_folder("modernbert"))
    assert [number for number, _ in got] == list(range(6))
    for (_, result), batch in zip(got, batches, strict=True):
        assert result.output is not None
        np.testing.assert_allclose(result.output.embeddings, alone.embed(batch).embeddings, atol=1e-6)


def test_a_batch_that_cannot_be_staged_fails_alone(family_folder: Folders) -> None:
    backend = graph_backend(family_folder("bert"))
    got, _ = compute(backend, [random_batch(), random_batch((10,) * 104), random_batch()])
    assert [result.error is None for _, result in got] == [True, False, True]
    assert str(got[1][1].error) == "the device failed on a batch: ValueError"


def test_the_warm_ups_timings_are_of_its_batches(family_folder: Folders) -> None:
    _, timings = compute(graph_backend(family_folder("bert")), [random_batch()])
    assert [(one.bucket, one.tokens) for one in timings] == [(256, 160), (256, 1000)]
    assert all(one.seconds > 0 for one in timings)
