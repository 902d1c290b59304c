"""Plays the one part that the control plane lacks: a node whose kubelet runs pods.

The API server, the scheduler and the controllers are real. Here pods only get an address on loopback, answer
/health there as a test tells them to, and have their status reported as a kubelet does, readiness gates included.
"""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.operator.api import api_client
from tests.operator.builders import health_document

NODE = "loopback"
_TIMEOUT_SECONDS = 30
"""Of its own requests; what must be quick is the operator, and each test says how quick."""
_NETWORK = f"127.{16 + os.getpid() % 200}"
"""Its pods are on loopback, apart from those of other test runs on this machine."""
Document = dict[str, Any]
Answer = Callable[[], Document | bytes | None]
"""A document, raw bytes, or None for a connection that hangs."""


@dataclass
class Script:
    """How the pods of one namespace behave; changed by the test while they run."""

    health: Document = field(default_factory=health_document)
    by_pod: dict[str, Document | bytes | None] = field(default_factory=dict)
    container_state: dict[str, Any] | None = None
    """A container status to report instead of a running container."""
    cut_off: set[str] = field(default_factory=set)
    """Pods that are well, as the kubelet sees them, and that the operator cannot reach."""

    def answer(self, pod: str) -> Document | bytes | None:
        return self.by_pod.get(pod, self.health)


class Kubelet:
    """One node, run by a thread."""

    def __init__(self, kubeconfig: Path) -> None:
        self._core = client.CoreV1Api(api_client(kubeconfig))
        self.scripts: dict[str, Script] = defaultdict(Script)
        self.failures: list[Exception] = []
        self.may_fail = False
        """Whether a test has taken the API server away."""
        self._servers: dict[str, ThreadingHTTPServer] = {}
        self._addresses = 0
        self._stopped = threading.Event()
        self._heartbeat_at = 0.0
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)

    def start(self) -> None:
        self._core.create_node({"metadata": {"name": NODE}})
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=10)
        for uid in list(self._servers):
            self._close(uid)

    def _run(self) -> None:
        while not self._stopped.wait(0.15):
            try:
                self._heartbeat()
                pods = self._core.list_pod_for_all_namespaces(
                    field_selector=f"spec.nodeName={NODE}", _preload_content=False, _request_timeout=_TIMEOUT_SECONDS
                )
                bodies = json.loads(pods.data)["items"]
                for uid in self._servers.keys() - {b["metadata"]["uid"] for b in bodies}:
                    self._close(uid)
                for body in bodies:
                    self._sync(body)
            except ApiException as error:
                if error.status not in {404, 409} and not self.may_fail:
                    self.failures.append(error)
            except HTTPError as error:
                if not self.may_fail:
                    self.failures.append(error)

    def _heartbeat(self) -> None:
        if time.monotonic() - self._heartbeat_at < 10:
            return
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                 "lastHeartbeatTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
        capacity = {"cpu": "64", "memory": "256Gi", "pods": "500"}
        self._core.patch_node_status(
            NODE,
            {"status": {"conditions": [ready], "capacity": capacity, "allocatable": capacity}},
            _request_timeout=_TIMEOUT_SECONDS,
        )
        self._core.patch_node(NODE, {"spec": {"taints": None}}, _request_timeout=_TIMEOUT_SECONDS)
        self._heartbeat_at = time.monotonic()

    def _sync(self, body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        name, namespace, uid = metadata["name"], metadata["namespace"], metadata["uid"]
        if "deletionTimestamp" in metadata:
            self._core.delete_namespaced_pod(name, namespace, grace_period_seconds=0, _request_timeout=_TIMEOUT_SECONDS)
            return
        script = self.scripts[namespace]
        status = body["status"]
        if script.container_state is None and uid not in self._servers:
            self._addresses += 1
            address = f"{_NETWORK}.{self._addresses // 250}.{self._addresses % 250 + 1}"
            self._servers[uid] = _serve(address, lambda: None if name in script.cut_off else script.answer(name))
        wanted = self._status(body, script, uid)
        current = {c["type"]: c["status"] for c in status.get("conditions", [])}
        is_right = all(current.get(c["type"]) == c["status"] for c in wanted["conditions"])
        if is_right and status.get("phase") == wanted["phase"] and status.get("containerStatuses") is not None:
            return
        self._core.patch_namespaced_pod_status(
            name, namespace, {"metadata": {"uid": uid}, "status": wanted}, _request_timeout=_TIMEOUT_SECONDS
        )

    def _status(self, body: dict[str, Any], script: Script, uid: str) -> dict[str, Any]:
        answer = script.answer(body["metadata"]["name"])
        serves = isinstance(answer, dict) and answer["phase"]["name"] == "serving"
        runs = script.container_state is None
        gates = [g["conditionType"] for g in body["spec"].get("readinessGates", [])]
        open_gates = {c["type"] for c in body["status"].get("conditions", []) if c["status"] == "True"}
        is_ready = runs and serves and all(gate in open_gates for gate in gates)
        container = {
            "name": "server", "image": "i", "imageID": "i", "restartCount": 0, "ready": runs and serves,
            "state": {"running": {"startedAt": "2026-03-01T12:00:00Z"}}, "lastState": {},
        }  # fmt: skip
        status = {
            "phase": "Running" if runs else "Pending",
            "conditions": [
                {"type": "ContainersReady", "status": str(runs and serves)},
                {"type": "Ready", "status": str(is_ready)},
            ],
            "containerStatuses": [{**container, **(script.container_state or {})}],
        }
        if runs:
            address = self._servers[uid].server_address[0]
            status |= {"podIP": address, "podIPs": [{"ip": address}]}
        return status

    def _close(self, uid: str) -> None:
        server = self._servers.pop(uid)
        server.shutdown()
        server.server_close()


def _serve(address: str, answer: Answer) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = answer()
            if said is None:
                time.sleep(5)
                return
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 8001), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server
