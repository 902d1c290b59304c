"""Up, down and health of a cluster, step by step."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from dev import packages
from dev.cluster import containers, network, node, versions
from dev.cluster.binaries import ensure_binaries
from dev.cluster.certificates import ensure_certificates
from dev.cluster.controlplane import control_plane
from dev.cluster.layout import IMAGE_PREFIX, RUNTIME, Layout, Mode
from dev.cluster.processes import Processes
from dev.console import DevError, run, step, succeeds, wait_until
from dev.paths import cache_folder

# Kept by `down`: what a person may still want to read.
_KEPT = ("logs", "artifacts", "models")


def up(layout: Layout) -> None:
    """Brings the cluster up, or mends what is not up; harmless when all is well.

    Raises:
        DevError: Something is missing, or a step failed; the message says what mends it.
    """
    started = time.monotonic()
    if is_healthy(layout):
        print(f"  the cluster is up: {layout.api_url}", flush=True)
        return
    binaries = _prepare(layout)
    processes = Processes(layout.state)
    enter = network.enter_namespace() if layout.mode is Mode.FULL else []
    for daemon in control_plane(layout, binaries, enter):
        processes.start(daemon)
    if layout.mode is Mode.FULL:
        _start_node(layout, binaries, processes, enter)
    _publish(layout, binaries)
    print(f"  the cluster is up after {time.monotonic() - started:.1f} s: {layout.api_url}", flush=True)


def down(layout: Layout) -> None:
    """Stops everything that `up` started and leaves nothing mounted; harmless when nothing runs."""
    processes = Processes(layout.state)
    if layout.mode is Mode.FULL:
        _require_root()
        owner = _owner()
        if owner is not None and owner != layout.state:
            raise DevError(f"this machine's node belongs to {owner}; stop it: make -C {owner.parent} cluster-down")
        _remove_pods(layout, processes)
    for name in _stop_order(processes.names()):
        with step(f"stopping {name}"):
            processes.stop(name)
    if layout.mode is Mode.FULL:
        _clear_node(layout)
    for path in layout.state.iterdir() if layout.state.exists() else []:
        if path.name not in _KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print("  the cluster is down", flush=True)


def is_healthy(layout: Layout) -> bool:
    """Whether every daemon runs, the API server says ready, and the node is Ready."""
    if not layout.facts.exists():
        return False
    facts = json.loads(layout.facts.read_text())
    if facts["mode"] != layout.mode:
        raise DevError(f"{layout.state} holds a cluster of mode {facts['mode']}: take it down first")
    processes = Processes(layout.state)
    kubectl = [facts["kubectl"], f"--kubeconfig={layout.kubeconfig}", "--request-timeout=5s"]
    return (
        all(processes.is_alive(name) for name in facts["daemons"])
        and succeeds([*kubectl, "get", "--raw", "/readyz"])
        and (layout.mode is Mode.CONTROL_PLANE or node.is_node_ready(kubectl))
    )


def _prepare(layout: Layout) -> Mapping[str, Path]:
    programs = versions.CONTROL_PLANE
    if layout.mode is Mode.FULL:
        _require_root()
        packages.ensure({**packages.FOR_CLUSTER, **packages.FOR_IMAGES})
        _take_machine(layout)
        programs += versions.NODE
    else:
        packages.ensure({"openssl": "openssl"})
    binaries = ensure_binaries(programs)
    with step("certificates"):
        ensure_certificates(layout)
    if layout.mode is Mode.FULL:
        if not network.namespace_exists():
            _clear_node(layout)
        RUNTIME.mkdir(parents=True, exist_ok=True)
        network.ensure_namespace()
        _owner_file().write_text(str(layout.state))
    return binaries


def _start_node(layout: Layout, binaries: Mapping[str, Path], processes: Processes, enter: list[str]) -> None:
    for daemon in containers.container_daemons(layout, enter):
        processes.start(daemon)
    with step("pause image"):
        containers.ensure_pause_image(binaries)
    for daemon in node.node_daemons(layout, binaries, enter):
        processes.start(daemon)
    manifests = json.dumps({"apiVersion": "v1", "kind": "List", "items": node.dns_service()})
    run([binaries["kubectl"], f"--kubeconfig={layout.kubeconfig}", "apply", "-f", "-"], stdin=manifests)


def _publish(layout: Layout, binaries: Mapping[str, Path]) -> None:
    """Writes cluster.json in one move, last of all."""
    facts = {
        "mode": layout.mode,
        "kubeconfig": str(layout.kubeconfig),
        "kubectl": str(binaries["kubectl"]),
        "helm": str(binaries["helm"]) if "helm" in binaries else None,
        "api_url": layout.api_url,
        "registry": containers.registry_address() if layout.mode is Mode.FULL else None,
        "image_prefix": IMAGE_PREFIX if layout.mode is Mode.FULL else None,
        "daemons": Processes(layout.state).names(),
    }
    draft = layout.facts.with_suffix(".draft")
    draft.write_text(json.dumps(facts, indent=1))
    draft.rename(layout.facts)


def _stop_order(names: list[str]) -> list[str]:
    """The API server and etcd last: everything else talks to them."""
    last = ["kube-apiserver", "etcd"]
    return [name for name in names if name not in last] + [name for name in last if name in names]


def _remove_pods(layout: Layout, processes: Processes) -> None:
    """Lets the kubelet take the pods down, so that their mounts and network namespaces go with them."""
    if not (layout.facts.exists() and processes.is_alive("kubelet") and processes.is_alive("kube-apiserver")):
        return
    kubectl = [json.loads(layout.facts.read_text())["kubectl"], f"--kubeconfig={layout.kubeconfig}"]
    with step("removing pods"):
        # Without controllers nobody makes the pods anew.
        processes.stop("kube-controller-manager")
        run([*kubectl, "delete", "pods", "--all", "--all-namespaces", "--grace-period=1", "--wait=false"])
        listing = ["ctr", f"--address={containers.SOCKET}", "--namespace=k8s.io", "containers", "ls", "-q"]
        wait_until(
            lambda: not run(listing).strip(), what="the containers are gone", within_seconds=60, every_seconds=0.5
        )


def _clear_node(layout: Layout) -> None:
    """Ends containers that are left, and removes mounts, network and runtime files."""
    containers.kill_containers()
    mine = (f"{RUNTIME}/", f"{node.kubelet_folder(layout)}")
    wait_until(lambda: _unmount(mine), what="mounts are gone", within_seconds=20)
    network.remove_namespace()
    if RUNTIME.exists():
        shutil.rmtree(RUNTIME, ignore_errors=True)
    _owner_file().unlink(missing_ok=True)


def _unmount(prefixes: tuple[str, ...]) -> bool:
    """Unmounts everything below the prefixes; True once nothing is mounted there."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = sorted((p for p in points if p.startswith(prefixes)), reverse=True)
    for point in ours:
        succeeds(["umount", "-l", point])
    return not ours


def _require_root() -> None:
    if os.geteuid() != 0:
        raise DevError("a node needs root: run it with sudo, or use --mode control-plane")


def _owner_file() -> Path:
    return cache_folder() / "node-owner"


def _owner() -> Path | None:
    path = _owner_file()
    return Path(path.read_text()) if path.exists() else None


def _take_machine(layout: Layout) -> None:
    """There is one node per machine; what a dead one left behind is cleared away.

    Raises:
        DevError: Another checkout's node runs here.
    """
    owner = _owner()
    if owner is None or owner == layout.state:
        return
    other = Processes(owner)
    running = [name for name in other.names() if other.is_alive(name)]
    if running:
        raise DevError(f"the node of {owner} runs on this machine; stop it: make -C {owner.parent} cluster-down")
    with step(f"clearing what is left of {owner}"):
        _clear_node(Layout(Mode.FULL, owner, layout.ports))
