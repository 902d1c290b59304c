"""Everything that runs, from bringing it up to taking it down, and what it costs meanwhile."""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.crowd import control_plane, progress
from bench.crowd.gates import GateWatch
from bench.crowd.operator_process import Operator
from bench.process import cpu_seconds
from dev.console import wait_until
from dev.paths import ROOT
from tests.e2e.kubectl import Kubectl
from tests.operator.crowd_health import CrowdHealth
from tests.operator.fake_nodes import PLACEMENT, fake_nodes

POD_ADDRESSES = "10.245.0.0/16"
HOLD_SECONDS = 30
"""For so long at least a gate that has opened or closed stays so."""
_NAMESPACE = "crowd"
_QUIET_SECONDS = 15
Json = dict[str, Any]


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
        progress.until(
            lambda: sum(self.gates.now.values()) == self.pods, 600, lambda: f"{sum(self.gates.now.values())} open"
        )
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
        pids = {"health_server": self.health.pid} | control_plane.pids(self.state)
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


@contextlib.contextmanager
def running(state: Path, pods: int, services: int) -> Iterator[Crowd]:
    """Brings everything up but the services, and takes it down again; its files lie in the folder `state`."""
    progress.show("control plane")
    control_plane.up(state)
    with contextlib.ExitStack() as stack:
        stack.callback(control_plane.down, state)
        facts = json.loads((state / "cluster.json").read_text())
        kubeconfig = Path(facts["kubeconfig"])
        kubectl = Kubectl(Path(facts["kubectl"]), kubeconfig, _NAMESPACE)
        kubectl.run("create", "namespace", _NAMESPACE)
        kubectl.run("apply", "--server-side", "-f", str(ROOT / "crds"))
        crd = "crd/embeddingservices.sluice.dev"
        wait_until(lambda: "True" in kubectl.run("get", crd, "-o", "jsonpath={.status.conditions[*].status}"),
                   what="the CRD", within_seconds=30)  # fmt: skip
        stack.enter_context(fake_nodes(kubectl, 10, pod_addresses=POD_ADDRESSES, log_file=state / "kwok.log"))
        health = stack.enter_context(CrowdHealth(["0.0.0.0"]))
        log_file = Path(os.environ.get("CROWD_LOG", state / "operator.log"))
        operator = Operator(kubeconfig, _NAMESPACE, log_file)
        stack.enter_context(operator.running())
        wait_until(operator.acts, what="the operator acts", within_seconds=60, log=operator.log_file)
        yield Crowd(pods, services, state, kubectl, health, operator, GateWatch(kubeconfig, _NAMESPACE))


def _service(number: int, replicas: int) -> Json:
    scaling = {"mode": "Internal", "minReplicas": replicas, "maxReplicas": replicas}
    spec = {"model": {"uri": "hf://org/model"}, "scaling": scaling, **PLACEMENT,
            "readiness": {"minHoldSeconds": HOLD_SECONDS}}  # fmt: skip
    metadata = {"name": f"crowd-{number:02}", "namespace": _NAMESPACE}
    return {"apiVersion": "sluice.dev/v1alpha1", "kind": "EmbeddingService", "metadata": metadata, "spec": spec}


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists()
