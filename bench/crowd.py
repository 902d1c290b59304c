"""`python -m bench.crowd [PODS] [SERVICES] [SECONDS]`: one operator, a real control plane, and a crowd of pods.

kwok plays nodes and pods, one process answers /health for all. Runs as root in a network namespace of its own, in
which every address of the pods is this host's; it goes with the last process in it. The operator's CPU is counted
by the kernel, how regularly it asks by those whom it asks, and its gates as the API server tells of them.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from bench.process import cpu_seconds
from dev.cluster import binaries, versions
from dev.cluster.processes import Processes
from dev.console import wait_until
from dev.paths import ROOT
from tests.e2e.kubectl import Kubectl
from tests.operator.api import api_client
from tests.operator.crowd_health import CrowdHealth
from tests.operator.fake_nodes import PLACEMENT, fake_nodes, kwok

POD_ADDRESSES = "10.245.0.0/16"
GATE = "sluice.dev/accepting"
NAMESPACE = "crowd"
POLL_SECONDS = 2.0
HOT = {"estimated_drain_time_ms": 1800.0, "queued_tokens": 21_600}
OUTAGE_SECONDS = 10.0
_HOLD_SECONDS = 30
_QUIET_SECONDS = 15
_HTTP_PORT = 18080
_INSIDE = "--inside"
Json = dict[str, Any]


def main() -> None:
    """Prints the figures as JSON."""
    words = [word for word in sys.argv[1:] if word != _INSIDE]
    if _INSIDE not in sys.argv:
        _enter_namespace(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is taken down
    for command in ("ip link set lo up", f"ip route add local {POD_ADDRESSES} dev lo"):
        subprocess.run(command.split(), check=True)
    pods, services, seconds = (int(one) for one in (words + ["1000", "50", "60"][len(words) :])[:3])
    with tempfile.TemporaryDirectory(prefix="sluice-crowd-") as folder, _crowd(Path(folder), pods, services) as crowd:
        figures: Json = {"pods": pods, "services": services, "start": crowd.start()}
        for measure in (steady, one_pod, storm, api_server):
            figures[measure.__name__] = measure(crowd, seconds)
            _progress(f"{measure.__name__}: {json.dumps(figures[measure.__name__])}")
    print(json.dumps(figures, indent=1))


def _enter_namespace(words: list[str]) -> None:
    if os.geteuid() != 0:
        raise SystemExit("bench.crowd makes a network namespace for its pods' addresses: run it as root")
    # Built here: inside, no module can be had.
    kwok()
    binaries.ensure_binaries(versions.CONTROL_PLANE)
    os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "bench.crowd", _INSIDE, *words])


class Operator:
    """`python -m sluice_operator` as a process of its own, and what can be seen of it from outside."""

    def __init__(self, kubeconfig: Path, log_file: Path) -> None:
        self._environment = {
            **os.environ, "KUBECONFIG": str(kubeconfig), "WATCH_NAMESPACES": NAMESPACE, "LEASE_NAMESPACE": NAMESPACE,
            "SERVER_IMAGE": "sluice-server:bench", "POLL_INTERVAL_SECONDS": str(POLL_SECONDS),
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


class GateWatch:
    """Every change of a gate as the API server tells of it.

    Attributes:
        changes: (monotonic seconds when it was told, pod, whether its gate is open).
        written: The second in which the operator wrote it, one per change.
        now: Whether the gate is open, by pod.
        addresses: By pod.
        services: By pod.
    """

    def __init__(self, kubeconfig: Path) -> None:
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
                stream: Any = self._core.list_namespaced_pod(NAMESPACE, watch=True, _preload_content=False)
                for line in stream:
                    self._take(json.loads(line)["object"])
            time.sleep(0.2)

    def _take(self, body: Json) -> None:
        name, status = body["metadata"]["name"], body.get("status", {})
        if "podIP" in status:
            self.addresses[name] = status["podIP"]
            self.services[name] = body["metadata"]["labels"]["sluice.dev/embeddingservice"]
        for condition in status.get("conditions", ()):
            is_open = condition["status"] == "True"
            if condition["type"] == GATE and self.now.get(name) is not is_open:
                self.changes.append((time.monotonic(), name, is_open))
                self.written.append(condition["lastTransitionTime"])
                self.now[name] = is_open


@dataclass(slots=True)
class Crowd:
    """Everything that runs."""

    pods: int
    services: int
    state: Path
    kubectl: Kubectl
    health: CrowdHealth
    operator: Operator
    gates: GateWatch

    def start(self) -> Json:
        """Applies the services; returns once every pod is in traffic and the operator is quiet."""
        began = time.monotonic()
        made = [_service(n, self.pods // self.services) for n in range(self.services)]
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
        self.kubectl.run("create", "-f", "-", stdin=listed, timeout_seconds=300)
        _until(lambda: sum(self.gates.now.values()) == self.pods, 600, lambda: f"{sum(self.gates.now.values())} open")
        seconds = round(time.monotonic() - began, 1)
        self.until_quiet()
        return {
            "seconds_until_all_are_open": seconds,
            "most_gate_writes_in_a_second": max(Counter(self.gates.written).values()),
            "peak_rss_mib": self.operator.rss_mib(peak=True),
        }

    def until_quiet(self) -> float:
        """Waits until the operator has written nothing for a while; returns how long it took until the last write."""
        began = quiet_since = time.monotonic()
        before = self.operator.writes()
        while time.monotonic() < quiet_since + _QUIET_SECONDS:
            time.sleep(1)
            now = self.operator.writes()
            if now != before:
                before, quiet_since = now, time.monotonic()
            if quiet_since > began + 300:
                raise SystemExit(f"the operator still writes after 300 s: {now}")
        return round(quiet_since - began, 1)

    @contextlib.contextmanager
    def measured(self) -> Iterator[Json]:
        """What the operator, and the others, used and wrote within the block."""
        pids = {"health_server": self.health.pid} | {
            name: found.pid
            for name in ("kube-apiserver", "etcd")
            if (found := Processes(self.state).identity(name)) is not None
        }
        self.operator.forget_peak()
        began, writes = time.monotonic(), self.operator.writes()
        used = {name: cpu_seconds(pid) for name, pid in pids.items()}
        cpu = cpu_seconds(self.operator.pid)
        figures: Json = {}
        yield figures
        cpu, seconds = cpu_seconds(self.operator.pid) - cpu, time.monotonic() - began
        figures |= {
            "seconds": round(seconds, 1),
            "operator_cores": round(cpu / seconds, 3),
            "rss_mib": self.operator.rss_mib(),
            "peak_rss_mib": self.operator.rss_mib(peak=True),
            "writes": dict(self.operator.writes() - writes),
            "other_cores": {
                n: round((cpu_seconds(pid) - used[n]) / seconds, 2) for n, pid in pids.items() if _is_alive(pid)
            },
        }


def steady(crowd: Crowd, seconds: int) -> Json:
    """Nothing happens: what it costs, and how regularly every pod is asked."""
    _progress(f"steady state, {seconds} s")
    crowd.health.asked_at()
    with crowd.measured() as figures:
        time.sleep(seconds)
    return figures | _regularity(crowd.health.asked_at(), seconds)


def one_pod(crowd: Crowd, _: int) -> Json:
    """One pod is overloaded, and well again."""
    pod, address = next(iter(crowd.gates.addresses.items()))
    crowd.health.asked_at()
    began = time.monotonic()
    crowd.health.say([address], **HOT)
    _until(lambda: pod in crowd.gates.closed(), 30)
    closed_at = crowd.gates.changes[-1][0]
    polls = sum(began < at < closed_at for at in crowd.health.asked_at()[address])
    crowd.health.say([address])
    _until(lambda: not crowd.gates.closed(), _HOLD_SECONDS + 30)
    crowd.until_quiet()
    return {"polls_until_closed": polls, "seconds_until_closed": round(closed_at - began, 2)}


def storm(crowd: Crowd, _: int) -> Json:
    """A third of all pods at the same moment, as many of each service; then all are well again."""
    time.sleep(_HOLD_SECONDS)
    of_service: dict[str, list[str]] = {}
    for pod, service in crowd.gates.services.items():
        of_service.setdefault(service, []).append(pod)
    hit = {pod for pods in of_service.values() for pod in sorted(pods)[: len(pods) // 3]}
    addresses = [crowd.gates.addresses[pod] for pod in hit]
    _progress(f"storm: {len(hit)} of {crowd.pods} pods")
    start, began = len(crowd.gates.changes), time.monotonic()
    with crowd.measured() as figures:
        crowd.health.say(addresses, **HOT)
        _until(lambda: crowd.gates.closed() >= hit, 300, lambda: f"{len(crowd.gates.closed())} closed")
    closing = crowd.gates.changes[start:]
    figures |= {
        "pods": len(hit),
        "seconds_until_all_are_closed": round(closing[-1][0] - began, 1),
        "most_gate_writes_in_a_second": max(Counter(crowd.gates.written[start:]).values()),
        "most_seen_in_a_second": most_in_a_second([at for at, _, _ in closing]),
        "closed_that_were_well": len(crowd.gates.closed() - hit),
        "most_closed_of_a_service": max(Counter(crowd.gates.services[p] for p in crowd.gates.closed()).values()),
    }
    time.sleep(_HOLD_SECONDS)
    start, began = len(crowd.gates.changes), time.monotonic()
    crowd.health.say(addresses)
    _until(lambda: not crowd.gates.closed(), 300, lambda: f"{len(crowd.gates.closed())} closed")
    opening = crowd.gates.changes[start:]
    return figures | {
        "seconds_until_all_are_open_again": round(opening[-1][0] - began, 1),
        "most_openings_in_a_second": max(Counter(crowd.gates.written[start:]).values()),
        "seconds_from_then_to_the_last_write": crowd.until_quiet(),
        "needless_changes": len(closing) + len(opening) - 2 * len(hit),
    }


def api_server(crowd: Crowd, _: int) -> Json:
    """The API server is killed, stays away, and comes back while a pod is overloaded."""
    time.sleep(_HOLD_SECONDS)
    pod, address = next(iter(crowd.gates.addresses.items()))
    found = Processes(crowd.state).identity("kube-apiserver")
    assert found is not None
    start = len(crowd.gates.changes)
    crowd.operator.forget_peak()
    os.kill(found.pid, signal.SIGKILL)
    crowd.health.say([address], **HOT)
    time.sleep(OUTAGE_SECONDS)
    _dev_cluster("up", "--mode", "control-plane", "--state-dir", str(crowd.state))
    began = time.monotonic()
    _until(lambda: pod in crowd.gates.closed(), 60)
    figures = {"outage_seconds": OUTAGE_SECONDS, "seconds_until_it_acts": round(time.monotonic() - began, 1)}
    crowd.health.say([address])
    _until(lambda: not crowd.gates.closed(), _HOLD_SECONDS + 30)
    return figures | {
        "seconds_until_quiet_again": crowd.until_quiet(),
        "peak_rss_mib": crowd.operator.rss_mib(peak=True),
        "needless_changes": len(crowd.gates.changes) - start - 2,
    }


def most_in_a_second(times: list[float]) -> int:
    """The most that lie in any window of one second."""
    ordered = sorted(times)
    return max((sum(at <= later < at + 1 for later in ordered[i:]) for i, at in enumerate(ordered)), default=0)


def _regularity(asked_at: dict[str, list[float]], seconds: float) -> Json:
    gaps = sorted(b - a for times in asked_at.values() for a, b in itertools.pairwise(times))
    return {
        "polls_per_second": round(sum(map(len, asked_at.values())) / seconds, 1),
        "pods_asked": len(asked_at),
        **{f"poll_gap_p{p}": round(gaps[len(gaps) * p // 100], 3) for p in (1, 50, 99)},
        "poll_gap_longest": round(gaps[-1], 3),
    }


@contextlib.contextmanager
def _crowd(state: Path, pods: int, services: int) -> Iterator[Crowd]:
    _progress("control plane")
    _dev_cluster("up", "--mode", "control-plane", "--state-dir", str(state))
    with contextlib.ExitStack() as stack:
        stack.callback(_dev_cluster, "down", "--state-dir", str(state))
        facts = json.loads((state / "cluster.json").read_text())
        kubeconfig = Path(facts["kubeconfig"])
        kubectl = Kubectl(Path(facts["kubectl"]), kubeconfig, NAMESPACE)
        kubectl.run("create", "namespace", NAMESPACE)
        kubectl.run("apply", "--server-side", "-f", str(ROOT / "crds"))
        crd = "crd/embeddingservices.sluice.dev"
        wait_until(lambda: "True" in kubectl.run("get", crd, "-o", "jsonpath={.status.conditions[*].status}"),
                   what="the CRD", within_seconds=30)  # fmt: skip
        stack.enter_context(fake_nodes(kubectl, 10, pod_addresses=POD_ADDRESSES, log_file=state / "kwok.log"))
        health = stack.enter_context(CrowdHealth(["0.0.0.0"]))
        log_file = Path(os.environ.get("CROWD_LOG", state / "operator.log"))
        operator = Operator(kubeconfig, log_file)
        stack.enter_context(operator.running())
        wait_until(lambda: _acts(operator), what="the operator acts", within_seconds=60, log=operator.log_file)
        yield Crowd(pods, services, state, kubectl, health, operator, GateWatch(kubeconfig))


def _acts(operator: Operator) -> bool:
    try:
        return operator.metrics()["sluice_operator_acts"] == 1
    except OSError:
        return False


def _service(number: int, replicas: int) -> Json:
    scaling = {"mode": "Internal", "minReplicas": replicas, "maxReplicas": replicas}
    spec = {"model": {"uri": "hf://org/model"}, "scaling": scaling, **PLACEMENT,
            "readiness": {"minHoldSeconds": _HOLD_SECONDS}}  # fmt: skip
    metadata = {"name": f"crowd-{number:02}", "namespace": NAMESPACE}
    return {"apiVersion": "sluice.dev/v1alpha1", "kind": "EmbeddingService", "metadata": metadata, "spec": spec}


def _until(is_so: Callable[[], bool], within_seconds: float, tell: Callable[[], str] = str) -> None:
    began = told_at = time.monotonic()
    while not is_so():
        now = time.monotonic()
        if now > began + within_seconds:
            raise SystemExit(f"not so within {within_seconds} s; {tell()}")
        if now > told_at + 10:
            told_at = now
            _progress(f"  {now - began:.0f} s {tell()}")
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists()


def _dev_cluster(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dev.cluster", *arguments], cwd=ROOT, stdout=sys.stderr, check=True)


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
