"""A real control plane for the whole session; for each test a namespace and an operator under the chart's own rights."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.cluster.processes import Processes
from dev.ports import free_ports
from tests.e2e.kubectl import Kubectl, condition
from tests.operator.builders import ROOT
from tests.operator.kubelet import Kubelet, Script

CONTROLLERS_SECONDS = 150.0
"""How long the controllers may take to come back, from when the API server is: two pauses of up to 60 s each.

Their watches pause for 30 to 60 s where some failed in the two minutes before, also in an earlier test. The one pause
had begun when the API server came back; the other follows when it knows no version as old as theirs, or no roles yet.
"""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where the API server is, as an administrator; its daemons can be killed, and mended."""

    state: Path
    kubeconfig: Path
    kubectl_binary: Path

    def kill(self, daemon: str) -> None:
        """SIGKILL, and nobody starts it anew."""
        found = Processes(self.state).identity(daemon)
        assert found is not None, f"{daemon} does not run"
        os.kill(found.pid, signal.SIGKILL)

    def mend(self) -> None:
        """Starts what does not run; returns once the API server is ready."""
        _dev_cluster("up", "--mode", "control-plane", "--state-dir", str(self.state))

    def until_controllers_work(self) -> None:
        """Waits until a namespace, a Deployment and its deletion come to what they should, with no operator in it."""
        kubectl = self.kubectl(f"probe-{os.urandom(4).hex()}")
        kubectl.run("create", "namespace", kubectl.namespace)
        labels = {"app": "probe"}
        container = {"name": "c", "image": "i"}
        kubectl.apply({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "probe"},
            "spec": {"selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
        })  # fmt: skip
        kubectl.eventually(
            lambda: condition(kubectl.get("deployment", "probe"), "Available")["status"],
            lambda status: status == "True", within_seconds=CONTROLLERS_SECONDS, what="a Deployment of nobody's",
        )  # fmt: skip
        kubectl.run("delete", "deployment", "probe")
        kubectl.eventually(
            lambda: kubectl.get("pods")["items"],
            lambda pods: not pods, within_seconds=CONTROLLERS_SECONDS, what="the end of its pods",
        )  # fmt: skip
        kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")

    def kubectl(self, namespace: str) -> Kubectl:
        return Kubectl(self.kubectl_binary, self.kubeconfig, namespace)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, API server, controllers and scheduler on loopback, with the CRD installed."""
    state = tmp_path_factory.mktemp("control-plane")
    _dev_cluster("up", "--mode", "control-plane", "--state-dir", str(state))
    try:
        facts = json.loads((state / "cluster.json").read_text())
        plane = ControlPlane(state, Path(facts["kubeconfig"]), Path(facts["kubectl"]))
        kubectl = plane.kubectl("default")
        kubectl.run("apply", "--server-side", "-f", str(ROOT / "crds"))
        # Not `kubectl wait`: it fails where the CRD has no conditions yet.
        kubectl.eventually(
            lambda: kubectl.get("crd", "embeddingservices.sluice.dev"),
            lambda crd: condition(crd, "Established")["status"] == "True", within_seconds=30, what="the CRD",
        )  # fmt: skip
        yield plane
    finally:
        _dev_cluster("down", "--state-dir", str(state))


@pytest.fixture(scope="session")
def kubelet(control_plane: ControlPlane) -> Iterator[Kubelet]:
    kubelet = Kubelet(control_plane.kubeconfig)
    kubelet.start()
    yield kubelet
    kubelet.stop()
    assert not kubelet.failures


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm of the local cluster, built where it is missing."""
    code = (
        "from dev.cluster import binaries, versions;"
        "p = [p for p in versions.NODE if p.name == 'helm'];"
        "print('HELM=' + str(binaries.ensure_binaries(p)['helm']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600, check=True
    )
    return Path(done.stdout.split("HELM=")[-1].strip())


@pytest.fixture
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own."""
    namespace = f"t-{os.urandom(4).hex()}"
    kubectl = control_plane.kubectl(namespace)
    kubectl.run("create", "namespace", namespace)
    yield kubectl
    kubectl.run("delete", "embeddingservices", "--all", "--wait=false")
    kubectl.run("delete", "namespace", namespace, "--wait=false")


@dataclass(slots=True)
class OperatorProcess:
    """`python -m sluice_operator` as a process of its own."""

    command: list[str]
    environment: dict[str, str]
    log_file: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it acts."""
        self.launch()
        self.wait_until("acts")

    def launch(self) -> None:
        """Returns at once."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log, cwd=ROOT)

    def wait_until(self, fact: str, within_seconds: float = 30) -> float:
        """Waits until it says so of itself; returns how many seconds that took."""
        began = time.monotonic()
        while not self.health("/readyz").get(fact):
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < began + within_seconds, f"no {fact} in {within_seconds} s:\n{self.log()}"
            time.sleep(0.1)
        return time.monotonic() - began

    def send(self, number: signal.Signals) -> None:
        """A signal, such as SIGKILL; whatever comes of it is not waited for."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)
            self.process = None

    def log(self) -> str:
        return self.log_file.read_text()

    def metric(self, name: str) -> dict[str, float]:
        """All samples of one metric by their labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.removeprefix(name).rsplit(" ", 1) for line in lines if line.startswith(name))
        return {labels: float(value) for labels, value in samples}

    def writes(self) -> float:
        """Requests so far that could change something."""
        return sum(self.metric("sluice_operator_kube_writes_total").values())

    def rounds(self) -> float:
        return self.metric("sluice_operator_reconciles_total").get('{outcome="ok"}', 0.0)

    def wait_rounds(self, number: int) -> None:
        """Waits until the operator has looked so often."""
        start = self.rounds()
        deadline = time.monotonic() + 30
        while self.rounds() < start + number:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def until_quiet(self) -> None:
        """Waits until several rounds in a row have written nothing."""
        deadline = time.monotonic() + 60
        while True:
            writes = self.writes()
            self.wait_rounds(5)
            if self.writes() == writes:
                return
            assert time.monotonic() < deadline, self.log()

    def health(self, path: str = "/healthz") -> dict[str, Any]:
        """What it says of itself; nothing where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return json.loads(answer.read()) | {"status": answer.status}
        except urllib.error.HTTPError as refusal:
            with refusal:
                return json.loads(refusal.read()) | {"status": refusal.code}
        except OSError:
            return {}


@pytest.fixture
def new_operator(
    control_plane: ControlPlane, kubelet: Kubelet, kubectl: Kubectl, helm: Path, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """Makes operators for the test's namespace alone, with the rights that the chart gives them and no others."""
    chart = [str(helm), "template", "sluice", str(ROOT / "charts/sluice"), "--kube-version=1.34.4",
             f"--namespace={kubectl.namespace}", f"--set=watchNamespaces={{{kubectl.namespace}}}"]  # fmt: skip
    rendered = subprocess.run(chart, capture_output=True, text=True, timeout=60, check=True).stdout
    rights = [d for d in yaml.safe_load_all(rendered) if d and d["kind"] != "Deployment"]
    kubectl.apply(*rights)
    token = kubectl.run("create", "token", "sluice-operator").strip()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_with_token(yaml.safe_load(control_plane.kubeconfig.read_text()), token)))
    made: list[OperatorProcess] = []

    def make(**environment: str) -> OperatorProcess:
        (port,) = free_ports(1)
        one = OperatorProcess(
            command=[sys.executable, "-m", "sluice_operator"],
            environment={
                **os.environ, "KUBECONFIG": str(kubeconfig), "WATCH_NAMESPACES": kubectl.namespace,
                "SERVER_IMAGE": "sluice-server:test", "POLL_INTERVAL_SECONDS": "0.3", "POLL_TIMEOUT_SECONDS": "0.5",
                "STALE_AFTER_SECONDS": "2", "HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(port), "LOG_FORMAT": "text",
                "LEASE_NAMESPACE": kubectl.namespace, "IDENTITY": f"operator-{len(made)}", **environment,
            },
            log_file=tmp_path / f"operator-{len(made)}.log",
            port=port,
        )  # fmt: skip
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()
    for one in made:
        assert "Traceback" not in one.log(), one.log()


@pytest.fixture
def operator(new_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    """The one operator of a test."""
    operator = new_operator()
    operator.start()
    return operator


@dataclass(slots=True)
class Deployed:
    """One EmbeddingService of a test and what its pods do."""

    name: str
    kubectl: Kubectl
    script: Script = field(default_factory=Script)

    def get(self) -> dict[str, Any]:
        return self.kubectl.get("embeddingservice", self.name)

    def status(self) -> dict[str, Any]:
        return self.get().get("status", {})

    def child(self, kind: str, name: str | None = None) -> dict[str, Any]:
        return self.kubectl.get(kind, name or self.name)

    def pods(self) -> list[dict[str, Any]]:
        return self.kubectl.get("pods", "-l", f"sluice.dev/embeddingservice={self.name}")["items"]

    def patch(self, **spec: Any) -> None:
        self.kubectl.run("patch", "embeddingservice", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def events(self) -> list[dict[str, Any]]:
        selector = f"involvedObject.name={self.name},involvedObject.kind=EmbeddingService"
        events = self.kubectl.get("events", f"--field-selector={selector}")["items"]
        return sorted(events, key=lambda e: e["eventTime"])

    def until(self, is_right: Callable[[dict[str, Any]], bool], within_seconds: float = 30) -> dict[str, Any]:
        return self.kubectl.eventually(self.get, is_right, within_seconds=within_seconds, what=self.name)

    def until_condition(self, kind: str, status: str, reason: str) -> dict[str, Any]:
        def holds(resource: dict[str, Any]) -> bool:
            found = condition(resource, kind)
            return (found.get("status"), found.get("reason")) == (status, reason)

        return condition(self.until(holds), kind)


@pytest.fixture
def deploy(kubectl: Kubectl, kubelet: Kubelet) -> Callable[..., Deployed]:
    """Applies an EmbeddingService; its pods serve at once unless the test scripts them otherwise before."""

    def apply(name: str = "minilm", **spec: Any) -> Deployed:
        fields = {"model": {"uri": "hf://org/model"}, "scaling": {"mode": "Off"}, **spec}
        kubectl.apply({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "EmbeddingService",
            "metadata": {"name": name}, "spec": fields,
        })  # fmt: skip
        return Deployed(name, kubectl, kubelet.scripts[kubectl.namespace])

    return apply


def _with_token(kubeconfig: dict[str, Any], token: str) -> dict[str, Any]:
    """The same server, another identity."""
    kubeconfig["users"][0]["user"] = {"token": token}
    return kubeconfig


def _dev_cluster(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dev.cluster", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
