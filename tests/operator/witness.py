"""Watches a service over a whole test and remembers every change: what must not flap is seen to flap or not."""

import json
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from sluice_operator.values import GATE
from urllib3.exceptions import HTTPError

from tests.operator.api import api_client


class Witness:
    """Looks several times a second while the block runs; while there is no API server, nothing can change either.

    Attributes:
        gates: By pod, the states of its gate in their order; a state that lasts is there once.
        conditions: By type, the conditions of the service as `status/reason` in their order.
        replicas: What the Deployment asked for, in its order.
        least_ready: The fewest pods that were in traffic at any look.
        pods: All pods that were ever seen.
        looks: How often it could look.
    """

    def __init__(self, kubeconfig: Path, namespace: str, service: str) -> None:
        api = api_client(kubeconfig)
        self._core, self._apps, self._custom = (
            client.CoreV1Api(api),
            client.AppsV1Api(api),
            client.CustomObjectsApi(api),
        )
        self._namespace, self._service = namespace, service
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self.gates: dict[str, list[str]] = defaultdict(list)
        self.conditions: dict[str, list[str]] = defaultdict(list)
        self.replicas: list[int] = []
        self.generations: list[int] = []
        self.least_ready = 1_000
        self.pods: set[str] = set()
        self.looks = 0
        self.longest_gap_seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        while not self.looks:
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(timeout=20)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stopped.wait(0.2):
            try:
                self._look()
            except (ApiException, HTTPError):
                continue
            self.looks += 1
            self.longest_gap_seconds = max(self.longest_gap_seconds, time.monotonic() - last)
            last = time.monotonic()

    def _look(self) -> None:
        selector = f"sluice.dev/embeddingservice={self._service}"
        pods = self._core.list_namespaced_pod(
            self._namespace, label_selector=selector, _preload_content=False, _request_timeout=3
        )
        deployment = self._apps.read_namespaced_deployment(
            self._service, self._namespace, _preload_content=False, _request_timeout=3
        )
        service = self._custom.get_namespaced_custom_object(
            "sluice.dev", "v1alpha1", self._namespace, "embeddingservices", self._service, _request_timeout=3
        )
        self._take_pods(json.loads(pods.data)["items"])
        deployed = json.loads(deployment.data)
        _add(self.replicas, deployed["spec"]["replicas"])
        _add(self.generations, deployed["metadata"]["generation"])
        for one in service.get("status", {}).get("conditions", []):
            _add(self.conditions[one["type"]], f"{one['status']}/{one['reason']}")

    def _take_pods(self, bodies: list[dict[str, Any]]) -> None:
        ready = 0
        for body in bodies:
            name = body["metadata"]["name"]
            self.pods.add(name)
            states = {c["type"]: c["status"] for c in body["status"].get("conditions", [])}
            ready += states.get("Ready") == "True"
            if GATE in states:
                _add(self.gates[name], states[GATE])
        self.least_ready = min(self.least_ready, ready)


def _add(states: list[Any], state: Any) -> None:
    if not states or states[-1] != state:
        states.append(state)
