"""Nodes and pods of a crowd: kwok plays them on a real control plane, without a process or a container per pod.

Its pods are Running at once, have addresses of a range, and are Ready while their readiness gate is True. Nobody
answers at those addresses unless `crowd_health` does.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.cluster import binaries, versions
from tests.e2e.kubectl import Kubectl

STAGES = Path(__file__).with_suffix(".yaml")
LABEL = {"kwok.x-k8s.io/node": "fake"}
PLACEMENT: dict[str, Any] = {
    "nodeSelector": LABEL,
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
}
"""What a spec needs for its pods to come to these nodes; no others do."""


def kwok() -> Path:
    """The program, built where it is missing."""
    return binaries.ensure_binaries([versions.FAKE_NODES])["kwok"]


@contextmanager
def fake_nodes(kubectl: Kubectl, number: int, *, pod_addresses: str, log_file: Path) -> Iterator[list[str]]:
    """Nodes that are ready within the block, by name; gone after it.

    Args:
        kubectl: of an administrator.
        number: of nodes.
        pod_addresses: a CIDR that pods get their addresses from.
        log_file: of kwok.
    """
    names = [f"fake-{n}" for n in range(number)]
    command = [str(kwok()), f"--kubeconfig={kubectl.kubeconfig}", f"--config={STAGES}", f"--cidr={pod_addresses}",
               "--manage-nodes-with-label-selector=kwok.x-k8s.io/node=fake", "--node-lease-duration-seconds=40"]  # fmt: skip
    with log_file.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        kubectl.apply(*(_node(name) for name in names))
        kubectl.run("wait", "--for=condition=Ready", "--timeout=60s", *(f"node/{n}" for n in names), timeout_seconds=70)
        yield names
    finally:
        kubectl.run("delete", "node", "--ignore-not-found", *names)
        process.terminate()
        process.wait(timeout=20)


def _node(name: str) -> dict[str, Any]:
    room = {"cpu": "1000", "memory": "4Ti", "pods": "1000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**LABEL, "kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"allocatable": room, "capacity": room},
    }
