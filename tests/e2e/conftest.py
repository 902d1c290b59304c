"""The installation under test: the local cluster, both images, the chart, one ready EmbeddingService."""

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import artifacts
from tests.e2e.kubectl import Kubectl, condition

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".cluster"
CLIENTS = Path(__file__).parent / "clients"
NAMESPACE = "sluice-e2e"
OPERATOR_NAMESPACE = "sluice-system"
MODEL = "all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True)
class Installation:
    """What `make demo` leaves behind: where the cluster is and which images run in it."""

    kubectl_binary: Path
    helm_binary: Path
    kubeconfig: Path
    server_image: str

    def kubectl(self, namespace: str) -> Kubectl:
        return Kubectl(self.kubectl_binary, self.kubeconfig, namespace)

    def helm(self, *arguments: str) -> list[str]:
        return [
            str(self.helm_binary),
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={OPERATOR_NAMESPACE}",
            *arguments,
        ]


def embedding_service(name: str, *, uri: str, replicas: int = 1) -> dict[str, Any]:
    """An EmbeddingService as small as one can be, in the precision that sentence-transformers computes in."""
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": uri, "dtype": "float32"},
            "replicas": replicas,
            "scaling": {"mode": "Off"},
            "resources": {"requests": {"cpu": "100m", "memory": "700Mi"}},
            # Compiling would take the cores from the tests; a test of its own shows it.
            "env": [{"name": "COMPILE", "value": "off"}],
        },
    }


@dataclass(slots=True)
class RunningClient:
    """A client pod that asks all the time; what became of its requests is known once it is stopped."""

    kubectl: Kubectl
    pod: str
    outcomes: Counter[str] = field(default_factory=Counter)

    def log(self) -> str:
        return self.kubectl.run("logs", self.pod)

    def first(self, code: str, *, within_seconds: float) -> float:
        """When a request first ended so, in seconds since the epoch."""
        line = self.kubectl.eventually(
            lambda: next((one for one in self.log().splitlines() if one.startswith(f"FIRST {code} ")), None),
            lambda found: found is not None,
            within_seconds=within_seconds,
            what=f"{code} at {self.pod}",
        )
        return float(line.split()[2])


@dataclass(frozen=True, slots=True)
class Service:
    """One EmbeddingService of the cluster, and clients that run beside it."""

    name: str
    kubectl: Kubectl
    server_image: str = ""
    model_folder: Path = ROOT / ".cluster"

    def get(self) -> dict[str, Any]:
        return self.kubectl.get("embeddingservice", self.name)

    def pods(self) -> list[dict[str, Any]]:
        items = self.kubectl.get("pods", "-l", f"sluice.dev/embeddingservice={self.name}")["items"]
        return [p for p in items if "deletionTimestamp" not in p["metadata"]]

    def eventually(self, is_right: Callable[[dict[str, Any]], bool], *, within_seconds: float) -> dict[str, Any]:
        return self.kubectl.eventually(self.get, is_right, within_seconds=within_seconds, what=f"service {self.name}")

    def run_client(self, script: str, environment: dict[str, str], *, target: str | None = None) -> str:
        """Runs a script of clients/ in a pod to its end and returns what it printed."""
        pod = self._start_client(script, environment, target or f"{self.name}:50051")
        try:
            self._wait_for_phase(pod, {"Succeeded"})
            return self.kubectl.run("logs", pod)
        finally:
            self.kubectl.run("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")

    @contextlib.contextmanager
    def steady_client(self, *, max_seconds: int = 400) -> Iterator[RunningClient]:
        """Requests without a pause over the headless Service while the block runs."""
        with self._client("steady.py", {"MAX_SECONDS": str(max_seconds)}, self._headless) as client:
            self.kubectl.eventually(client.log, lambda log: "STARTED" in log, within_seconds=90, what="steady client")
            yield client

    @contextlib.contextmanager
    def flood(self, *, threads: int, target: str | None = None, max_seconds: int = 300) -> Iterator[RunningClient]:
        """More than can be computed, at all pods or at one target, while the block runs; see clients/flood.py."""
        environment = {"MAX_SECONDS": str(max_seconds), "THREADS": str(threads)}
        with self._client("flood.py", environment, target or self._headless) as client:
            yield client

    @property
    def _headless(self) -> str:
        return f"dns:///{self.name}-headless:50051"

    @contextlib.contextmanager
    def _client(self, script: str, environment: dict[str, str], target: str) -> Iterator[RunningClient]:
        client = RunningClient(self.kubectl, self._start_client(script, environment, target))
        try:
            yield client
            self.kubectl.run("exec", client.pod, "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
            self._wait_for_phase(client.pod, {"Succeeded"})
            client.outcomes.update(json.loads(client.log().splitlines()[-1]))
        finally:
            self.kubectl.run("delete", "pod", client.pod, "--grace-period=0", "--force", "--wait=false")

    def _start_client(self, script: str, environment: dict[str, str], target: str) -> str:
        name = f"client-{Path(script).stem.replace('_', '-')}-{os.urandom(3).hex()}"
        code = (CLIENTS / script).read_text()
        container = {
            "name": "client",
            "image": self.server_image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-c", code],
            "env": [{"name": k, "value": v} for k, v in {"TARGET": target, **environment}.items()],
        }
        self.kubectl.apply({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "client"}},
            "spec": {"restartPolicy": "Never", "containers": [container], "enableServiceLinks": False},
        })  # fmt: skip
        return name

    def _wait_for_phase(self, pod: str, phases: set[str]) -> None:
        seen = self.kubectl.eventually(
            lambda: self.kubectl.get("pod", pod)["status"].get("phase"),
            lambda phase: phase in phases | {"Failed"},
            within_seconds=180,
            what=f"pod {pod} ends",
        )
        assert seen in phases, self.kubectl.run("logs", pod)


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The cluster, images and chart as `make demo` sets them up; taken down again unless it was there before."""
    was_up = _dev("cluster", "status").returncode == 0
    up = _dev("demo", "--only-install")
    assert up.returncode == 0, up.stdout
    facts = json.loads((STATE / "cluster.json").read_text())
    images = json.loads((STATE / "images.json").read_text())
    yield Installation(
        kubectl_binary=Path(facts["kubectl"]),
        helm_binary=Path(facts["helm"]),
        kubeconfig=Path(facts["kubeconfig"]),
        server_image=images["server"],
    )
    if not was_up and not os.environ.get("KEEP_CLUSTER"):
        down = _dev("cluster", "down")
        assert down.returncode == 0, down.stdout


@pytest.fixture(scope="session")
def cluster_kubectl(installation: Installation) -> Iterator[Kubectl]:
    """kubectl in a namespace of the tests' own."""
    kubectl = installation.kubectl(NAMESPACE)
    with contextlib.suppress(AssertionError):
        kubectl.run("create", "namespace", NAMESPACE)
    yield kubectl
    with contextlib.suppress(AssertionError):
        kubectl.run("delete", "namespace", NAMESPACE, "--timeout=120s", timeout_seconds=130)


@pytest.fixture(scope="session")
def operator(installation: Installation) -> Kubectl:
    """kubectl in the operator's namespace."""
    return installation.kubectl(OPERATOR_NAMESPACE)


@pytest.fixture(scope="session")
def service(installation: Installation, cluster_kubectl: Kubectl) -> Iterator[Service]:
    """MiniLM on a PersistentVolume, served by two replicas, Ready."""
    volume, claim = _model_volume(STATE / "models")
    cluster_kubectl.apply(volume, claim, embedding_service("minilm", uri=f"pvc://models/{MODEL}", replicas=2))
    service = Service("minilm", cluster_kubectl, installation.server_image, STATE / "models" / MODEL)
    service.eventually(
        lambda s: condition(s, "Ready")["status"] == "True" and s["status"].get("readyReplicas") == 2,
        within_seconds=300,
    )
    yield service
    # It is in no namespace, and a claim of the next run could not have it; it goes as soon as its claim does.
    cluster_kubectl.run("delete", "persistentvolume", volume["metadata"]["name"], "--wait=false")


def _model_volume(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "sluice-e2e-models"},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadOnlyMany"],
            "hostPath": {"path": str(folder)},
            "storageClassName": "",
            "claimRef": {"namespace": NAMESPACE, "name": "models"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": "sluice-e2e-models",
            "resources": {"requests": size},
        },
    }
    return volume, claim


def _dev(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the project's own tools; what it prints is shown by pytest when the test fails."""
    return subprocess.run(
        [sys.executable, "-m", f"dev.{tool}", *arguments],
        cwd=ROOT, env={**os.environ, "UV": str(Path(sys.executable).parent / "uv")}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1800, check=False,
    )  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    installed = getattr(item, "funcargs", {}).get("installation")
    if report.failed and installed is not None:
        namespaces = [installed.kubectl(NAMESPACE), installed.kubectl(OPERATOR_NAMESPACE)]
        artifacts.collect(STATE / "artifacts" / item.name, namespaces)
    return report
