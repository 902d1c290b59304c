"""The operator that the crowd is under: its process, its metrics, its memory."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dev.paths import ROOT

_POLL_SECONDS = 2.0
_HTTP_PORT = 18080


class Operator:
    """`python -m sluice_operator` as a process of its own, and what can be seen of it from outside."""

    def __init__(self, kubeconfig: Path, namespace: str, log_file: Path) -> None:
        self._environment = {
            **os.environ, "KUBECONFIG": str(kubeconfig), "WATCH_NAMESPACES": namespace, "LEASE_NAMESPACE": namespace,
            "SERVER_IMAGE": "sluice-server:bench", "POLL_INTERVAL_SECONDS": str(_POLL_SECONDS),
            "HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(_HTTP_PORT),
        }  # fmt: skip
        self.log_file = log_file
        self.pid = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Runs within the block."""
        command = [sys.executable, "-m", "sluice_operator"]
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, cwd=ROOT)
        self.pid = process.pid
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)

    def metrics(self) -> dict[str, float]:
        """All samples by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{_HTTP_PORT}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def acts(self) -> bool:
        """Whether it answers, and is the one that writes."""
        try:
            return self.metrics()["sluice_operator_acts"] == 1
        except OSError:
            return False

    def writes(self) -> Counter[str]:
        """Writes so far by what they were."""
        name = "sluice_operator_kube_writes_total"
        return Counter({key.removeprefix(name): int(n) for key, n in self.metrics().items() if key.startswith(name)})

    def rss_mib(self, peak: bool = False) -> float:
        """Resident memory, or the most of it since `forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        name = "VmHWM:" if peak else "VmRSS:"
        return round(int(status.split(name)[1].split()[0]) / 1024, 1)

    def forget_peak(self) -> None:
        """Lets the peak begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
