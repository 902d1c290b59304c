"""The gates of all pods, as the API server tells of them."""

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from tests.operator.api import api_client

_GATE = "sluice.dev/accepting"


class GateWatch:
    """Every change of a gate as the API server tells of it.

    Attributes:
        changes: (monotonic seconds when it was told, pod, whether its gate is open).
        written: The second in which the operator wrote it, one per change.
        now: Whether the gate is open, by pod.
        addresses: By pod.
        services: By pod.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._namespace = namespace
        self._core = client.CoreV1Api(api_client(kubeconfig))
        self.changes: list[tuple[float, str, bool]] = []
        self.written: list[str] = []
        self.now: dict[str, bool] = {}
        self.addresses: dict[str, str] = {}
        self.services: dict[str, str] = {}
        threading.Thread(target=self._run, name="gates", daemon=True).start()

    def closed(self) -> set[str]:
        """Pods whose gate is closed."""
        return {pod for pod, is_open in list(self.now.items()) if not is_open}

    def _run(self) -> None:
        while True:
            with contextlib.suppress(client.ApiException, HTTPError, ValueError):
                stream: Any = self._core.list_namespaced_pod(self._namespace, watch=True, _preload_content=False)
                for line in stream:
                    self._take(json.loads(line)["object"])
            time.sleep(0.2)

    def _take(self, body: dict[str, Any]) -> None:
        name, status = body["metadata"]["name"], body.get("status", {})
        if "podIP" in status:
            self.addresses[name] = status["podIP"]
            self.services[name] = body["metadata"]["labels"]["sluice.dev/embeddingservice"]
        for condition in status.get("conditions", ()):
            is_open = condition["status"] == "True"
            if condition["type"] == _GATE and self.now.get(name) is not is_open:
                self.changes.append((time.monotonic(), name, is_open))
                self.written.append(condition["lastTransitionTime"])
                self.now[name] = is_open
