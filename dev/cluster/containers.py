"""containerd and the image registry: configuration, daemons, and taking containers down."""

import contextlib
import json
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

from dev.cluster.layout import IMAGE_PREFIX, NODE_IP, POD_CIDR, REGISTRY_PORT, RUNTIME, Layout
from dev.cluster.processes import Daemon
from dev.console import run, succeeds
from dev.images.buildah import buildah
from dev.paths import cache_folder

SOCKET = RUNTIME / "containerd.sock"
CGROUP = "sluice"
PAUSE_IMAGE = f"{IMAGE_PREFIX}/pause:1"


def registry_address() -> str:
    """Where the host pushes to."""
    return f"{NODE_IP}:{REGISTRY_PORT}"


def container_daemons(layout: Layout, enter: list[str]) -> list[Daemon]:
    """The registry, then containerd; both keep their data in the cache, so images are pushed and pulled once."""
    registry_config, containerd_config = layout.state / "registry.json", layout.state / "containerd.toml"
    _write_cni(layout.state / "cni")
    _write_mirror(layout.state / "certs.d")
    registry_config.write_text(json.dumps(_registry_config()))
    containerd_config.write_text(_containerd_config(layout))
    return [
        Daemon(
            "registry",
            [*enter, "docker-registry", "serve", str(registry_config)],
            lambda: succeeds([*enter, "bash", "-c", f"exec 3<>/dev/tcp/{NODE_IP}/{REGISTRY_PORT}"]),
            environment={"OTEL_TRACES_EXPORTER": "none"},
        ),
        Daemon(
            "containerd",
            [*enter, "containerd", f"--config={containerd_config}"],
            lambda: succeeds(["ctr", f"--address={SOCKET}", "version"]),
        ),
    ]


def ensure_pause_image(binaries: Mapping[str, Path]) -> None:
    """Builds the pause image from its static program and pushes it to the cluster's registry."""
    if succeeds(["ctr", f"--address={SOCKET}", "--namespace=k8s.io", "images", "check", f"name=={PAUSE_IMAGE}"]) and (
        PAUSE_IMAGE in run(["ctr", f"--address={SOCKET}", "--namespace=k8s.io", "images", "ls", "-q"])
    ):
        return
    container = run(buildah("from", "scratch")).strip()
    run(buildah("copy", container, str(binaries["pause"]), "/pause"))
    run(buildah("config", '--entrypoint=["/pause"]', container))
    run(buildah("commit", "--rm", container, "localhost/sluice-pause:1"))
    push("localhost/sluice-pause:1", PAUSE_IMAGE)


def push(local: str, reference: str) -> None:
    """Pushes a local image under a name of the cluster's registry; layers that it has are not sent again."""
    path = reference.removeprefix(f"{IMAGE_PREFIX}/")
    target = f"docker://{registry_address()}/{path}"
    # zstd at its lowest level: several times faster than gzip on the 5 GB of torch.
    compression = ("--compression-format=zstd", "--compression-level=1")
    run(buildah("push", "--quiet", "--tls-verify=false", *compression, local, target), timeout_seconds=900)


def kill_containers() -> None:
    """Ends every process of the cluster's pods, then their shims: both outlive containerd."""
    for cgroup in Path("/sys/fs/cgroup").glob(f"*/{CGROUP}"):
        for procs in cgroup.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                _kill(int(pid) for pid in procs.read_text().split())
    _kill(_shims())


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _shims() -> list[int]:
    """Shims of this very containerd: its socket stands in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if "containerd-shim" in words[0] and str(SOCKET) in words:
                found.append(int(path.parent.name))
    return found


def _registry_config() -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(cache_folder() / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": f"0.0.0.0:{REGISTRY_PORT}"},
    }


def _write_cni(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(RUNTIME / "cni"),
            "ranges": [[{"subnet": POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    plan = {"cniVersion": "0.4.0", "name": "sluice", "plugins": [bridge, portmap]}
    (folder / "10-sluice.conflist").write_text(json.dumps(plan, indent=1))


def _write_mirror(folder: Path) -> None:
    """Tells containerd that the prefix of our images means the registry beside it."""
    target = folder / IMAGE_PREFIX
    target.mkdir(parents=True, exist_ok=True)
    url = f"http://{registry_address()}"
    (target / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')


def _containerd_config(layout: Layout) -> str:
    return f"""
version = 2
root = "{cache_folder() / "containerd"}"
state = "{RUNTIME / "containerd"}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE a sandbox that lowers its oom_score_adj dies with a message about a closed pipe.
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE_IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.state / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{layout.state / "certs.d"}"
"""
