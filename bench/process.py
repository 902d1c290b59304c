"""A server in a process of its own, and what can be read of it from outside."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CACHE = Path(os.environ.get("SLUICE_CACHE_DIR", Path.home() / ".cache/sluice")) / "bench-models"
_COMPILE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that serves.

    Attributes:
        target: For gRPC.
        url: For HTTP.
        pid: Of its process.
    """

    target: str
    url: str
    pid: int

    def health(self) -> dict[str, Any]:
        """The document of GET /health."""
        with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
            document: dict[str, Any] = json.load(response)
            return document

    def info(self) -> dict[str, Any]:
        """The document of GET /info."""
        with urllib.request.urlopen(f"{self.url}/info", timeout=5) as response:
            document: dict[str, Any] = json.load(response)
            return document

    def rss_mib(self) -> float:
        """Resident memory."""
        return rss_mib(self.pid)

    def cpu_seconds(self) -> float:
        """Of all threads since the start."""
        return cpu_seconds(self.pid)


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process since its start."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pause(pid: int) -> None:
    """It takes no CPU until `resume`, whatever it does when it has nothing to do."""
    os.kill(pid, signal.SIGSTOP)


def resume(pid: int) -> None:
    """After `pause`."""
    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def server(model: str, **environment: str) -> Iterator[ServerProcess]:
    """Starts a server on free ports of loopback and waits until it serves, with its fastest engine unless COMPILE=off.

    Raises:
        SystemExit: It failed; the text says why.
    """
    variables = {
        "MODEL_PATH": model, "GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0", "HTTP_HEALTH_PORT": "0",
        "SHUTDOWN_PROPAGATION_SECONDS": "0", "MODEL_CACHE_DIR": str(_CACHE), **os.environ, **environment,
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", "sluice_server"], env=variables, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            records = (json.loads(line) for line in process.stderr if line.startswith(b"{"))
            ports = next(record for record in records if record["message"] == "listening")
            settled = next(record for record in records if record.get("phase") in ("serving", "failed"))
            if settled["phase"] == "failed":
                raise SystemExit(settled["message"])
            # A pipe that nobody reads would in time stop the server.
            threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True).start()
            started = ServerProcess(
                f"127.0.0.1:{ports['grpc_port']}", f"http://127.0.0.1:{ports['http_port']}", process.pid
            )
            if variables.get("COMPILE") != "off":
                _wait_until_fastest(started)
            yield started
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_fastest(process: ServerProcess) -> None:
    deadline = time.monotonic() + _COMPILE_SECONDS
    while process.info()["execution"] == "eager":
        if time.monotonic() > deadline:
            raise SystemExit("no faster engine was there in time; the log says why, COMPILE=off measures without")
        time.sleep(1)


def _pass_on(lines: Any) -> None:
    with contextlib.suppress(ValueError):
        for line in lines:
            sys.stderr.buffer.write(line)
