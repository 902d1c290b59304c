"""Names, addresses and paths of one cluster, decided in one place."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from dev.cluster.files import write
from dev.ports import free_ports

SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
POD_CIDR = "10.244.0.0/24"
NODE_NAME = "sluice-node"
NETWORK_NAMESPACE = "sluice"
HOST_IP = "10.201.0.1"
NODE_IP = "10.201.0.2"
REGISTRY_PORT = 5000
# Images named with this prefix come from the cluster's own registry.
IMAGE_PREFIX = "sluice.local"
# Sockets and runtime state: a short path, as the length of a socket's path is limited.
RUNTIME = Path("/run/sluice")
CONTAINERD_SOCKET = RUNTIME / "containerd.sock"
# Held while a full cluster is up; outside RUNTIME, which goes with the cluster.
MACHINE_LOCK = Path("/run/sluice.lock")
# All pods live below it: what runs there is ours.
CGROUP = "sluice"
HOST_LINK, NODE_LINK = "sluice-host", "sluice-node"

# A file of the state folder, made for a control plane only: a full cluster's ports are fixed.
_PORTS = "ports.json"


class Mode(StrEnum):
    """FULL runs pods, as root; CONTROL_PLANE is an API server with its controllers, for tests."""

    FULL = "full"
    CONTROL_PLANE = "control-plane"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the control plane listens."""

    etcd: int = 2379
    etcd_peer: int = 2380
    api: int = 6443
    controller_manager: int = 10257
    scheduler: int = 10259


@dataclass(frozen=True, slots=True)
class Layout:
    """One cluster's mode and places."""

    mode: Mode
    state: Path
    ports: Ports

    @property
    def ip(self) -> str:
        """Where etcd and the API server listen."""
        return NODE_IP if self.mode is Mode.FULL else "127.0.0.1"

    @property
    def api_url(self) -> str:
        """For every client, on the host and in the cluster's namespace."""
        return f"https://{self.ip}:{self.ports.api}"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        """One file per daemon."""
        return self.state / "logs"

    @property
    def records(self) -> Path:
        """One file per daemon that was started."""
        return self.state / "pids"

    @property
    def pod_logs(self) -> Path:
        """One folder per pod."""
        return self.logs / "pods"

    @property
    def kubelet(self) -> Path:
        """The kubelet's root; it mounts the volumes of pods below."""
        return self.state / "kubelet"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.state / "kubeconfig"

    @property
    def facts(self) -> Path:
        """cluster.json: what other tools need to know; written last, so it means that `up` was done."""
        return self.state / "cluster.json"


def recorded_mode(state: Path) -> Mode:
    """What the state folder holds, a full cluster where it holds none."""
    return Mode.CONTROL_PLANE if (state / _PORTS).exists() else Mode.FULL


def layout(mode: Mode, state: Path) -> Layout:
    """The cluster of a state folder; a control plane keeps the free ports that it once chose."""
    state = state.resolve()
    if mode is Mode.FULL:
        return Layout(mode, state, Ports())
    record = state / _PORTS
    if record.exists():
        return Layout(mode, state, Ports(**json.loads(record.read_text())))
    ports = Ports(*free_ports(len(Ports.__slots__)))
    write(record, json.dumps(asdict(ports)))
    return Layout(mode, state, ports)
