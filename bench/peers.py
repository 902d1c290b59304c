"""The peers, each in a process of its own, as its own documents start it; two threads, a local model, no telemetry."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import grpc
from gpu_inference import inference_pb2 as coral_pb
from safetensors.numpy import load_file, save_file

from dev.ports import free_ports

_START_SECONDS = 300
_STOP_SECONDS = 3


class PeerUnavailableError(RuntimeError):
    """A peer cannot take part; the text says why."""


@contextlib.contextmanager
def coral(folder: Path, log: Path, threads: int) -> Iterator[tuple[str, int]]:
    """coral-gpu-inference; gives its gRPC target and its process.

    Raises:
        PeerUnavailableError: It does not start.
    """
    target = f"127.0.0.1:{free_ports(1)[0]}"
    environment = {
        "MODEL_PATH": str(folder), "GRPC_HOST": "127.0.0.1", "GRPC_PORT": target.rsplit(":", 1)[1],
        "HTTP_HEALTH_PORT": "0", "METRICS_ENABLED": "false", "OMP_NUM_THREADS": str(threads),
    }  # fmt: skip
    with _started([sys.executable, "-m", "coral_gpu_inference.grpc_server"], environment, log) as process:
        _wait(process, log, lambda: _answers_grpc(target))
        yield target, process.pid


@contextlib.contextmanager
def infinity(binary: Path, folder: Path, engine: str, log: Path, threads: int) -> Iterator[tuple[str, int]]:
    """infinity-emb with one of its engines (torch, optimum); gives its URL for embeddings and its process.

    Raises:
        PeerUnavailableError: It is not installed, or does not start.
    """
    if not binary.exists():
        raise PeerUnavailableError(f"not installed; expected {binary.name} in the environment of dev/locks/peers.txt")
    (port,) = free_ports(1)
    command = [
        str(binary), "v2", "--model-id", str(folder), "--engine", engine, "--device", "cpu", "--host", "127.0.0.1",
        "--port", str(port), "--served-model-name", "model", "--no-model-warmup", "--log-level", "warning",
        *(["--pooling-method", "mean"] if engine == "optimum" else []),
    ]  # fmt: skip
    environment = {
        "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}/embeddings"
    with _started(command, environment, log) as process:
        _wait(process, log, lambda: _answers_http(url))
        yield url, process.pid


def embeddings_url(base: str) -> str:
    """Of a running text-embeddings-inference, which starts elsewhere.

    Raises:
        PeerUnavailableError: Nobody answers there.
    """
    url = f"{base.rstrip('/')}/v1/embeddings"
    if not _answers_http(url):
        raise PeerUnavailableError("TEI_URL: nobody answers POST /v1/embeddings there")
    return url


def coral_folders(model: Path, cache: Path) -> Mapping[str, Path]:
    """The model as coral-gpu-inference computes it in bfloat16 and in float32, by dtype.

    It has no setting: what it takes for a contrastive checkpoint (`model.safetensors` with keys that begin with
    `encoder.`) it computes in bfloat16, all else in the checkpoint's dtype. It also strips `encoder.` from a plain
    BERT's keys, which leaves random weights; so each folder holds the same weights in a form that it reads rightly.
    """
    weights = load_file(model / "model.safetensors")
    folders = {dtype: cache / f"coral-{dtype}" for dtype in ("bfloat16", "float32")}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in model.glob("*.json"):
            shutil.copyfile(path, folder / path.name)
    prefixed = {f"encoder.{key}": value for key, value in weights.items()}
    save_file(prefixed, folders["bfloat16"] / "model.safetensors", {"format": "pt"})
    shard = "model-00001-of-00001.safetensors"
    save_file(weights, folders["float32"] / shard, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folders["float32"] / "model.safetensors.index.json").write_text(json.dumps(index))
    return folders


@contextlib.contextmanager
def _started(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as written, _process(command, {**os.environ, **environment}, written) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _process(command: list[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _wait(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise PeerUnavailableError(f"it did not start: {said[0][:300]}")
        time.sleep(0.5)


def _answers_grpc(target: str) -> bool:
    with grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/gpu_inference.InferenceService/HealthCheck",
            coral_pb.HealthRequest.SerializeToString,
            coral_pb.HealthResponse.FromString,
        )
        try:
            check(coral_pb.HealthRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return True


def _answers_http(url: str) -> bool:
    body: Any = json.dumps({"model": "model", "input": ["ready"]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False
