"""A real server of several processes, as a container would run it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.server.test_apis import get


def until(holds: Callable[[], Any], *, within_seconds: float = 60) -> Any:
    """What it gives, once that is true."""
    deadline = time.monotonic() + within_seconds
    while not (given := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return given


@dataclass(slots=True)
class Processes:
    """The main process, and what all of them write to the log."""

    process: "subprocess.Popen[str]"
    log: list[dict[str, Any]] = field(default_factory=list)

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in tuple(self.log) if message in line.get("message", "")]

    @property
    def ports(self) -> dict[str, Any]:
        return self.said("listening")[0]

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.ports['grpc_port']}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http_port']}"

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(self.grpc_target, [("grpc.use_local_subchannel_pool", 1)])

    def front_ends(self) -> list[int]:
        """Their process ids."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [pid for pid in map(int, _all_children(children)) if "sluice_server.frontends" in _command(pid)]

    def connections(self, pid: int) -> int:
        """Open ones from callers to this front end."""
        port, established = f":{self.ports['grpc_port']:04X}", "01"
        rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        rows += [line.split() for line in Path(f"/proc/{pid}/net/tcp6").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == established}
        links = Path(f"/proc/{pid}/fd").iterdir()
        return sum(1 for link in links if link.is_symlink() and str(link.readlink()) in sockets)

    def health(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(get(f"{self.url}/health"))
        return document

    def until_serving(self) -> None:
        until(lambda: self.health()["phase"]["name"] in {"serving", "failed"}, within_seconds=100)
        assert self.health()["phase"]["name"] == "serving", self.health()["phase"]


def _all_children(path: str) -> list[str]:
    """Of every thread, as whichever started a process is its parent here."""
    tasks = Path(path).parents[1]
    return [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@contextlib.contextmanager
def processes(front_ends: int = 2, **environment: str) -> Iterator[Processes]:
    """Ends with whatever the test left of it; nothing may stay."""
    settings = {
        "GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0", "HTTP_HEALTH_PORT": "0", "FRONT_ENDS": str(front_ends),
        "SHUTDOWN_PROPAGATION_SECONDS": "0", "DTYPE": "float32", "BUCKETS": "64,512",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "sluice_server"],
        env={**os.environ, **settings, **environment},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        running = Processes(process)
        assert process.stderr is not None
        reader = threading.Thread(target=_read, args=(process.stderr, running.log))
        reader.start()
        try:
            until(lambda: running.said("listening") or process.poll() is not None)
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()
            # The last process that holds it is gone.
            reader.join(30)
            assert not reader.is_alive()


def _read(stream: Any, log: list[dict[str, Any]]) -> None:
    log.extend(json.loads(line) if line.startswith("{") else {"message": line} for line in stream)
