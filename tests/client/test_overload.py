"""Many clients on one small server: refusals are many, and in the end all are served."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sluice_client import EmbeddingClient, EmbedOptions

from tests.client.conftest import health
from tests.server.conftest import RunningServer, running_server

TEXTS = [f"{'overloaded ' * 60} {number}" for number in range(24)]


@pytest.fixture(scope="module")
def small(model_folder: Path) -> Iterator[RunningServer]:
    """Refuses whatever would make its queue longer than a tenth of a second."""
    with running_server(
        model_path=str(model_folder), dtype="float32", layout="packed", backpressure_max_drain_ms=100
    ) as running:
        running.wait_for_phase("serving", "failed")
        yield running


@pytest.mark.timeout(300)
def test_an_overloaded_server_serves_all_of_its_many_clients_in_the_end(small: RunningServer, reference: Any) -> None:
    expected = reference.encode(TEXTS, normalize_embeddings=True)
    answers: list[np.ndarray] = []
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            with EmbeddingClient(small.grpc_target, deadline_seconds=100, max_inputs_per_request=6) as client:
                answers.append(client.embed(TEXTS, EmbedOptions(priority="batch")))
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(110)
    assert failures == []
    assert len(answers) == 10
    for rows in answers:
        assert np.sum(rows * expected, axis=1).min() >= 0.9999
    assert health(small.url)["rejected_tokens_total"] > 0
