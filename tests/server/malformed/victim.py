"""A server in a process of its own, and the proof that it was not harmed."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.server.conftest import minilm_folder
from tests.server.malformed.verdicts import MAX_INPUTS, MAX_MESSAGE_BYTES, MAX_TOKENS


@dataclass(frozen=True, slots=True)
class Victim:
    """Where it listens, and its process."""

    process: subprocess.Popen[bytes]
    log: Path
    grpc_port: int
    http_port: int
    boot_id: str

    def memory_mebibytes(self, kind: str) -> float:
        """VmRSS is resident now, VmHWM was at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{kind}:")[1].split()[0]) / 1024

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/health", timeout=10) as response:
            return json.load(response)

    def check_unharmed(self) -> None:
        """The same process, healthy and idle: all that was admitted was computed or dropped, and no error is logged."""
        assert self.process.poll() is None
        until = time.monotonic() + 10
        while (document := self.health())["queued_tokens"] and time.monotonic() < until:
            time.sleep(0.05)
        assert document["boot_id"] == self.boot_id
        assert (document["status"], document["accepting_requests"]) == ("healthy", True)
        assert (document["queued_tokens"], document["gpu_queue_depth"]) == (0, 0)
        settled = document["computed_tokens_total"] + document["expired_tokens_total"]
        assert settled == document["admitted_tokens_total"]
        errors = [line for line in self.log.read_text().splitlines() if '"level": "ERROR"' in line]
        assert not errors, errors[:3]


@contextlib.contextmanager
def running_victim(log: Path) -> Iterator[Victim]:
    """Starts the server as it is started in a pod; it refuses nothing for load."""
    environment = {
        **os.environ, "MODEL_PATH": str(minilm_folder()), "DTYPE": "float32", "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": "0", "HTTP_HEALTH_PORT": "0", "BUCKETS": "16,512", "SHUTDOWN_PROPAGATION_SECONDS": "0",
        "BACKPRESSURE_THROUGHPUT_ENABLED": "false", "MAX_INPUTS_PER_REQUEST": str(MAX_INPUTS),
        "MAX_TOKENS_PER_REQUEST": str(MAX_TOKENS), "MAX_MESSAGE_BYTES": str(MAX_MESSAGE_BYTES),
        # Memory that grows here shall be ours: oneDNN keeps more for each new size of a batch, up to these bounds.
        "LRU_CACHE_CAPACITY": "8", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8",
    }  # fmt: skip
    with log.open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-m", "sluice_server"], env=environment, stderr=sink)
    try:
        yield _when_serving(process, log)
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _when_serving(process: subprocess.Popen[bytes], log: Path) -> Victim:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        lines = [
            json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")
        ]
        if any(line.get("phase") == "serving" for line in lines):
            ports = next(line for line in lines if line["message"] == "listening")
            victim = Victim(process, log, ports["grpc_port"], ports["http_port"], "")
            return Victim(process, log, victim.grpc_port, victim.http_port, victim.health()["boot_id"])
        time.sleep(0.1)
    raise AssertionError(log.read_text())
