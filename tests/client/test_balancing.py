"""Several pods behind one address: all are used, one may drain and come back, and no request fails."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from sluice_client import EmbeddingClient

from tests.client.conftest import (
    ServerProcess,
    admitted_tokens,
    embed_async,
    embed_sync,
    server_process,
    wait_for,
)
from tests.server.conftest import RunningServer, running_server

# Connections end every second: the whole timeline lives through it.
IN_PROCESS = {"max_connection_age_seconds": 1, "backpressure_max_drain_ms": 60_000, "buckets": (32,)}
OWN_PROCESS = {
    "MAX_CONNECTION_AGE_SECONDS": "1", "SHUTDOWN_PROPAGATION_SECONDS": "4", "SHUTDOWN_DRAIN_SECONDS": "20",
    "BUCKETS": "32",
}  # fmt: skip
TEXTS = [f"text number {number}" for number in range(16)]


@pytest.fixture
def one(model_folder: Path) -> Iterator[ServerProcess]:
    with server_process(model_folder, **OWN_PROCESS) as pod:
        yield pod


@pytest.fixture
def two(model_folder: Path) -> Iterator[RunningServer]:
    with running_server(model_path=str(model_folder), dtype="float32", layout="packed", **IN_PROCESS) as pod:
        pod.wait_for_phase("serving")
        yield pod


class Traffic:
    """One small request after the other, from a thread, until it is stopped."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.failures: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def wait_for_answers(self, count: int) -> None:
        goal = self.answered + count
        wait_for(lambda: self.answered >= goal or bool(self.failures), f"{count} more answers", within_seconds=60)

    def _run(self) -> None:
        try:
            with EmbeddingClient(self._target, deadline_seconds=30) as client:
                while not self._stop.is_set():
                    assert client.embed(["a text", "another"]).shape == (2, 384)
                    self.answered += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failures.append(error)


def gets_nothing_more(pod: ServerProcess, traffic: Traffic) -> bool:
    before = pod.admitted_tokens()
    traffic.wait_for_answers(10)
    return pod.admitted_tokens() == before


@pytest.mark.timeout(300)
async def test_a_pod_drains_and_comes_back_and_no_request_fails(
    one: ServerProcess, two: RunningServer, model_folder: Path
) -> None:
    one.wait_until_serving()
    target = f"ipv4:127.0.0.1:{one.grpc_port},{two.grpc_target}"

    for embed in (embed_sync, embed_async):
        before = one.admitted_tokens(), admitted_tokens(two.url)
        assert (await embed(target, TEXTS, max_inputs_per_request=1)).shape == (16, 384)
        assert one.admitted_tokens() > before[0]
        assert admitted_tokens(two.url) > before[1]

    with Traffic(target) as traffic:
        traffic.wait_for_answers(20)
        one.terminate()
        # Its health says so before it refuses: from then on all goes to the other.
        wait_for(lambda: one.health()["phase"]["name"] == "draining", "the pod drains")
        wait_for(lambda: gets_nothing_more(one, traffic), "the draining pod gets nothing more", within_seconds=4)
        assert one.process.wait(40) == 0
        traffic.wait_for_answers(20)

        with server_process(model_folder, **OWN_PROCESS, GRPC_PORT=str(one.grpc_port)) as again:
            again.wait_until_serving()
            wait_for(lambda: again.admitted_tokens() > 0, "the pod that came back is used", within_seconds=30)
            traffic.wait_for_answers(20)
            traffic.stop()
    assert traffic.failures == []
