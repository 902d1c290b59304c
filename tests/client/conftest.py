"""Real servers for the client: Sluice with its real model, in this process or its own, and one that follows a script."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_client import AsyncEmbeddingClient, EmbeddingClient, EmbedOptions

# The fixtures of the server's own tests: one server and one reference model, made in the same way.
from tests.server.conftest import minilm, model_folder, reference  # noqa: F401

DEFAULTS = EmbedOptions()


# --- both clients behind one face ------------------------------------------------------------------


async def embed_sync(target: str, inputs: Any, options: EmbedOptions = DEFAULTS, **client: Any) -> Any:
    with EmbeddingClient(target, **client) as opened:
        return opened.embed(inputs, options)


async def embed_async(target: str, inputs: Any, options: EmbedOptions = DEFAULTS, **client: Any) -> Any:
    async with AsyncEmbeddingClient(target, **client) as opened:
        return await opened.embed(inputs, options)


@pytest.fixture(params=[embed_sync, embed_async], ids=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Any:
    """Makes a client, embeds, and closes it: with the blocking client, then with the asyncio client."""
    return request.param


# --- a server that follows a script ----------------------------------------------------------------


@dataclass
class Script(embeddings_pb2_grpc.EmbeddingsServicer):
    """A gRPC server of the same API that answers as it is told; each text is a number, and its embedding holds it.

    Attributes:
        behave: Called with the texts and how often these texts came before; may abort the call.
        alter: Called with the texts and the reply; may change it.
        seen: The texts of each request, in the order of arrival.
        cancelled: Requests whose caller left before the answer.
    """

    behave: Callable[[Sequence[str], int, grpc.ServicerContext], None] = lambda *_: None
    alter: Callable[[Sequence[str], pb.EmbedResponse], None] = lambda *_: None
    info: pb.GetInfoResponse = field(
        default_factory=lambda: pb.GetInfoResponse(
            max_inputs_per_request=4, max_tokens_per_request=1000, max_input_tokens=100, embedding_dimension=2
        )
    )
    seen: list[tuple[str, ...]] = field(default_factory=list)
    cancelled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    infos: int = 0
    target: str = ""
    _lock: Any = field(default_factory=threading.Lock)

    def Embed(self, request: pb.EmbedRequest, context: grpc.ServicerContext) -> pb.EmbedResponse:  # noqa: N802
        texts = tuple(request.texts.values)
        with self._lock:
            before = self.seen.count(texts)
            self.seen.append(texts)
        self.behave(texts, before, context)
        rows = np.array([[float(text), 1.0] for text in texts], dtype="<f4")
        tensor = pb.Tensor(data=rows.tobytes(), shape=rows.shape, dtype=pb.DATA_TYPE_FLOAT32)
        reply = pb.EmbedResponse(embeddings=tensor, tokens_used=len(texts))
        self.alter(texts, reply)
        return reply

    def GetInfo(self, request: pb.GetInfoRequest, context: grpc.ServicerContext) -> pb.GetInfoResponse:  # noqa: N802
        self.infos += 1
        return self.info

    def block_until_the_caller_leaves(self, context: grpc.ServicerContext) -> None:
        left = threading.Event()
        assert context.add_callback(left.set)
        assert left.wait(30)
        self.cancelled.release()


@pytest.fixture
def script() -> Iterator[Script]:
    served = Script()
    with ThreadPoolExecutor(20, "script") as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        embeddings_pb2_grpc.add_EmbeddingsServicer_to_server(served, server)
        served.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield served
        server.stop(grace=None).wait(10)


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


# --- Sluice in a process of its own ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """`python -m sluice_server`, as in a pod."""

    process: subprocess.Popen[str]
    grpc_port: int
    http_port: int

    def health(self) -> dict[str, Any]:
        return health(f"http://127.0.0.1:{self.http_port}")

    def admitted_tokens(self) -> int:
        return admitted_tokens(f"http://127.0.0.1:{self.http_port}")

    def wait_until_serving(self) -> None:
        wait_for(lambda: self.health()["phase"]["name"] == "serving", "the server serves", within_seconds=90)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def health(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:
        document: dict[str, Any] = json.load(reply)
        return document


def admitted_tokens(url: str) -> int:
    return int(health(url)["admitted_tokens_total"])


@contextlib.contextmanager
def server_process(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    """Starts one, yields once it listens, and ends it in order."""
    environment = {
        **os.environ, "MODEL_PATH": str(folder), "DTYPE": "float32", "LAYOUT": "packed", "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": "0", "HTTP_HEALTH_PORT": "0", "OMP_NUM_THREADS": "1", "BACKPRESSURE_MAX_DRAIN_MS": "60000",
        "SHUTDOWN_PROPAGATION_SECONDS": "0", **settings,
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "sluice_server"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = (json.loads(line) for line in process.stderr if line.startswith("{"))
        ports = next(line for line in lines if line["message"] == "listening")
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        try:
            yield ServerProcess(process, ports["grpc_port"], ports["http_port"])
        finally:
            process.terminate()
            process.wait(30)
            reader.join(10)


def wait_for(condition: Callable[[], bool], what: str, within_seconds: float = 30) -> None:
    """Returns when the condition holds."""
    until = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < until, f"not within {within_seconds} s: {what}"
        time.sleep(0.02)
