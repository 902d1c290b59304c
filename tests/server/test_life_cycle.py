"""From the first second to the last: what a server says while it starts, when it cannot, and when it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from jsonschema import Draft202012Validator
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server.errors import ModelLoadError
from sluice_server.model import load_model

from tests.server.conftest import RunningServer, running_server
from tests.server.test_apis import SCHEMA, get

REQUEST = pb.EmbedRequest(texts=pb.Texts(values=["a text"]))


def health_of(running: RunningServer) -> dict[str, Any]:
    document = json.loads(get(f"{running.url}/health"))
    Draft202012Validator(SCHEMA).validate(document)
    return document


def code_of(running: RunningServer) -> tuple[grpc.StatusCode, str]:
    with running.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        embeddings_pb2_grpc.EmbeddingsStub(channel).Embed(REQUEST, timeout=10)
    return refused.value.code(), refused.value.details()


def health_status(running: RunningServer, name: str = "") -> int:
    with running.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


def test_before_the_model_is_warm_everything_says_not_yet(model_folder: Path) -> None:
    go_on = threading.Event()

    def slow_load(config: Any, report: Any) -> Any:
        report("loading", "a large model")
        assert go_on.wait(30)
        return load_model(config, report)

    with running_server(slow_load, model_path=str(model_folder)) as running:
        running.wait_for_phase("loading")
        document = health_of(running)
        assert document["phase"]["name"] == "loading"
        assert document["accepting_requests"] is False
        unknown = (
            "service_rate_tokens_per_sec",
            "estimated_drain_time_ms",
            "embedding_dimension",
            "last_forward_age_ms",
        )
        assert [document[key] for key in unknown] == [None] * 4
        assert health_status(running) == health_pb2.HealthCheckResponse.NOT_SERVING
        for path, expect in (("startupz", 503), ("readyz", 503), ("livez", 200)):
            assert "loading: a large model" in get(f"{running.url}/{path}", expect=expect)
        code, details = code_of(running)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "not ready yet: loading" in details
        go_on.set()
        running.wait_for_phase("serving")
        assert health_of(running)["accepting_requests"] is True


def test_a_model_that_cannot_be_loaded_is_told_and_the_server_stays_up_to_tell_it() -> None:
    with running_server(model_path="/no/such/model") as running:
        running.wait_for_phase("failed")
        document = health_of(running)
        assert document["phase"]["name"] == "failed"
        assert "there is no folder /no/such/model" in document["phase"]["reason"]
        for path in ("startupz", "readyz", "livez"):
            assert "there is no folder" in get(f"{running.url}/{path}", expect=503)
        code, details = code_of(running)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "there is no folder" in details


def test_a_warm_up_that_fails_is_a_failed_server_not_a_ready_one(model_folder: Path) -> None:
    def load(config: Any, report: Any) -> Any:
        loaded = load_model(config, report)
        loaded.backend.embed = _raise  # type: ignore[method-assign]
        return loaded

    with running_server(load, model_path=str(model_folder), layout="padded") as running:
        running.wait_for_phase("failed", "serving")
        assert health_of(running)["phase"] == {
            "name": "failed", "reason": "the device is gone", "step": None, "steps": None,
        }  # fmt: skip
        assert health_status(running) == health_pb2.HealthCheckResponse.NOT_SERVING


def _raise(_batch: Any) -> Any:
    raise ModelLoadError("the device is gone")


def test_health_watch_hears_of_every_change(model_folder: Path) -> None:
    with running_server(model_path=str(model_folder)) as running, running.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="sluice.v1.Embeddings"), timeout=60
        )
        seen = [next(watch).status]
        if seen == [health_pb2.HealthCheckResponse.NOT_SERVING]:
            seen.append(next(watch).status)
        assert seen[-1] == health_pb2.HealthCheckResponse.SERVING
        running.begin_stop()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_sigterm_finishes_what_was_admitted_and_exits_0(model_folder: Path) -> None:
    """A real process under a steady client: nothing that was asked before the end is lost."""
    environment = {
        **os.environ, "MODEL_PATH": str(model_folder), "GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0",
        "HTTP_HEALTH_PORT": "0", "SHUTDOWN_PROPAGATION_SECONDS": "1", "OMP_NUM_THREADS": "1",
        "BACKPRESSURE_MAX_DRAIN_MS": "60000", "SHUTDOWN_DRAIN_SECONDS": "60",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "sluice_server"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        ports = next(r for r in map(_json, process.stderr) if r.get("message") == "listening")
        said: list[str] = []
        reader = threading.Thread(target=said.extend, args=(process.stderr,))
        reader.start()
        with grpc.insecure_channel(f"127.0.0.1:{ports['grpc_port']}") as channel:
            stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
            _wait_until_serving(f"http://127.0.0.1:{ports['http_port']}/readyz")
            batch = pb.EmbedRequest(texts=pb.Texts(values=["a rather long text " * 20] * 60))
            calls = [stub.Embed.future(batch, timeout=60) for _ in range(3)]
            while not json.loads(get(f"http://127.0.0.1:{ports['http_port']}/health"))["queued_tokens"]:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert [len(call.result().embeddings.data) for call in calls] == [60 * 384 * 4] * 3
            assert process.wait(30) == 0
        reader.join(10)
        assert [line for line in said if not _json(line)] == [], "whoever collects the log can read each of its lines"
        assert said


@pytest.mark.parametrize("moment", ["listening", "phase loading", "phase warming"])
def test_sigterm_before_it_serves_exits_0(model_folder: Path, moment: str) -> None:
    """The device's thread is in the middle of something then: the process aborted, and looked like one that failed."""
    environment = {
        **os.environ, "MODEL_PATH": str(model_folder), "GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0", "HTTP_HEALTH_PORT": "0",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "sluice_server"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        next(r for r in map(_json, process.stderr) if r.get("message", "").startswith(moment))
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(30) == 0, rest


def test_once_the_model_is_loaded_the_garbage_collector_looks_at_nothing_that_is_there() -> None:
    """In a process of its own: what is frozen stays so."""
    code = """
import gc
from sluice_server.health import Phase
from sluice_server.server import keep_what_the_start_made
for name in ("loading", "warming", "warming", "serving"):
    keep_what_the_start_made(Phase(name))
    print(name, gc.get_freeze_count() > 10_000)
print(len(gc.get_objects()) < 5_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["loading False", "warming True", "warming True", "serving True", "True"]


def _json(line: str) -> dict[str, Any]:
    return json.loads(line) if line.startswith("{") else {}


def _wait_until_serving(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"{url} is not 200")


def test_a_device_that_is_silent_for_two_minutes_is_not_alive(
    minilm: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm.server.engine, "running_seconds", lambda: 119.0)
    get(f"{minilm.url}/livez")
    monkeypatch.setattr(minilm.server.engine, "running_seconds", lambda: 121.0)
    assert "failed: the device has been at one batch for 121 s" in get(f"{minilm.url}/livez", expect=503)
