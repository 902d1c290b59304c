"""containerd, the image registry, and what goes into them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from dev.cluster.files import write
from dev.cluster.layout import (
    CONTAINERD_SOCKET,
    IMAGE_PREFIX,
    NODE_IP,
    POD_CIDR,
    REGISTRY_PORT,
    RUNTIME,
    Layout,
)
from dev.cluster.processes import Daemon
from dev.console import DevError, run, succeeds
from dev.images.buildah import buildah
from dev.paths import cache_folder

PAUSE_IMAGE = f"{IMAGE_PREFIX}/pause:1"


def registry_address() -> str:
    """Where the host pushes to."""
    return f"{NODE_IP}:{REGISTRY_PORT}"


def container_daemons(layout: Layout, enter: list[str]) -> list[Daemon]:
    """The registry, then containerd; their data stay in the cache, so images are pushed and pulled once."""
    registry_config, containerd_config = layout.state / "registry.json", layout.state / "containerd.toml"
    _write_cni(layout.state / "cni")
    _write_mirror(layout.state / "certs.d")
    write(registry_config, json.dumps(_registry_config()))
    write(containerd_config, _containerd_config(layout))
    return [
        Daemon(
            "registry",
            [*enter, "docker-registry", "serve", str(registry_config)],
            lambda: succeeds([*enter, "bash", "-c", f"exec 3<>/dev/tcp/{NODE_IP}/{REGISTRY_PORT}"]),
            environment={"OTEL_TRACES_EXPORTER": "none"},
            files=[registry_config],
        ),
        Daemon(
            "containerd",
            [*enter, "containerd", f"--config={containerd_config}"],
            lambda: succeeds(["ctr", f"--address={CONTAINERD_SOCKET}", "version"]),
            files=[containerd_config],
        ),
    ]


def ensure_pause_image(binaries: Mapping[str, Path]) -> None:
    """Builds the pause image from its static program and pushes it to the cluster's registry."""
    if PAUSE_IMAGE in run(["ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io", "images", "ls", "-q"]):
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


def _registry_config() -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": str(_data_folder("docker-registry"))},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"0.0.0.0:{REGISTRY_PORT}"},
    }


def _data_folder(program: str) -> Path:
    """In the cache, by version: an older program must not open what a newer one wrote."""
    said = run([program, "--version"])
    version = re.search(r"\b(\d+\.\d+)\.\d", said)
    if version is None:
        raise DevError(f"`{program} --version` names no version: {said.strip()}")
    return cache_folder().absolute() / f"{program}-{version[1]}"


def _write_cni(folder: Path) -> None:
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
    write(folder / "10-sluice.conflist", json.dumps(plan, indent=1))


def _write_mirror(folder: Path) -> None:
    """Tells containerd that the prefix of our images means the registry beside it."""
    target = folder / IMAGE_PREFIX
    url = f"http://{registry_address()}"
    write(target / "hosts.toml", f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')


def _containerd_config(layout: Layout) -> str:
    return f"""
version = 2
root = "{_data_folder("containerd")}"
state = "{RUNTIME / "containerd"}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE a sandbox that lowers its oom_score_adj dies with a message about a closed pipe.
  restrict_oom_score_adj = true
  # Else the namespaces of pods that could not be removed stay mounted in the machine's own folder.
  netns_mounts_under_state_dir = true
  sandbox_image = "{PAUSE_IMAGE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{RUNTIME / "runc"}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.state / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{layout.state / "certs.d"}"
"""
