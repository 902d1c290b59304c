"""Up and down, step by step."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from dev.cluster import containers, facts, leftovers, locks, network, node, prerequisites, versions
from dev.cluster.binaries import ensure_binaries
from dev.cluster.certificates import ensure_certificates
from dev.cluster.controlplane import control_plane
from dev.cluster.layout import CONTAINERD_SOCKET, RUNTIME, Layout, Mode, Ports
from dev.cluster.processes import Processes
from dev.cluster.status import is_healthy
from dev.console import DevError, run, step, wait_until

# Kept by `down`: what a person may still want to read, and the lock that `down` itself holds.
_KEPT = ("logs", "artifacts", "models", ".lock")


def programs(mode: Mode) -> tuple[versions.Program, ...]:
    """What the mode runs, and kubectl and Helm to use it."""
    return versions.CONTROL_PLANE + (versions.NODE if mode is Mode.FULL else ())


def up(layout: Layout) -> None:
    """Brings the cluster up, or mends what is not up; harmless when all is well.

    Raises:
        DevError: Something is missing, or a step failed; the message says what mends it.
    """
    started = time.monotonic()
    known = facts.read(layout)
    if known and known["mode"] != layout.mode:
        raise DevError(f"{layout.state} holds a {known['mode']} cluster: take it down, or name another --state-dir")
    if is_healthy(layout):
        print(f"  the cluster is up already: {layout.api_url}", flush=True)
        return
    prerequisites.check(layout.mode, programs(layout.mode))
    binaries = ensure_binaries(programs(layout.mode))
    with locks.state_lock(layout.state):
        _start(layout, binaries)
    print(f"  the cluster is up after {time.monotonic() - started:.1f} s: {layout.api_url}", flush=True)


def down(layout: Layout) -> None:
    """Stops everything that `up` started and leaves nothing mounted; harmless when nothing runs.

    Raises:
        DevError: Something does not end; the message names it.
    """
    if not layout.records.exists():
        print(f"  nothing is up in {layout.state}", flush=True)
        return
    if layout.mode is Mode.FULL and (problem := prerequisites.root_problem()):
        raise DevError(f"missing: {problem}")
    started = time.monotonic()
    with locks.state_lock(layout.state):
        _stop(layout)
        for path in layout.state.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"  the cluster is down after {time.monotonic() - started:.1f} s", flush=True)


def _start(layout: Layout, binaries: Mapping[str, Path]) -> None:
    processes = Processes(layout.state)
    with step("certificates"):
        ensure_certificates(layout)
    if layout.mode is Mode.FULL:
        _prepare_machine(layout, processes)
    enter = network.enter_namespace() if layout.mode is Mode.FULL else []
    for daemon in control_plane(layout, binaries, enter):
        processes.start(daemon)
    if layout.mode is Mode.FULL:
        _start_node(layout, binaries, processes, enter)
    facts.publish(layout, binaries)


def _prepare_machine(layout: Layout, processes: Processes) -> None:
    """Takes the machine, clears what a cluster that was not taken down left, and makes the namespace."""
    earlier = locks.take_machine(layout, processes)
    if earlier:
        with step(f"clearing what is left of {earlier}"):
            _stop(Layout(Mode.FULL, earlier, Ports()), release=False)
    if not network.namespace_is_complete():
        # Without its network whatever still runs is of no use.
        _stop_daemons(processes)
        leftovers.clear_machine(layout)
    RUNTIME.mkdir(parents=True, exist_ok=True)
    network.ensure_namespace()


def _start_node(layout: Layout, binaries: Mapping[str, Path], processes: Processes, enter: list[str]) -> None:
    for daemon in containers.container_daemons(layout, enter):
        processes.start(daemon)
    with step("pause image"):
        containers.ensure_pause_image(binaries)
    for daemon in node.node_daemons(layout, binaries, enter):
        processes.start(daemon)
    manifests = json.dumps({"apiVersion": "v1", "kind": "List", "items": node.dns_service()})
    run([binaries["kubectl"], f"--kubeconfig={layout.kubeconfig}", "apply", "-f", "-"], stdin=manifests)


def _stop(layout: Layout, *, release: bool = True) -> None:
    processes = Processes(layout.state)
    ours = layout.mode is Mode.FULL and (not release or locks.last_owner() == layout.state)
    if ours:
        _remove_containers(processes)
    with step("stopping the daemons"):
        _stop_daemons(processes)
    if ours:
        with step("clearing mounts, cgroups and network"):
            leftovers.clear_machine(layout)
        if release:
            locks.release_machine(processes)


def _stop_daemons(processes: Processes) -> None:
    """All together, but etcd last: the API server waits in vain for it when both end at once."""
    last = ("etcd", locks.HOLDER)
    processes.stop(name for name in processes.names() if name not in last)
    processes.stop(["etcd"])


def _remove_containers(processes: Processes) -> None:
    """Removes the containers from containerd, which outlives the cluster in the cache with its images."""
    processes.stop(["kubelet"])  # else it would start them anew
    if not processes.identity("containerd"):
        return
    with step("removing containers"):
        wait_until(_no_containers, what="the containers are gone", within_seconds=30)


def _no_containers() -> bool:
    ctr = ["ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io"]
    found = run([*ctr, "containers", "ls", "-q"]).split()
    tasks = run([*ctr, "tasks", "ls", "-q"]).split()
    for kind, names in (("tasks", tasks), ("containers", found)):
        flags = ["--force"] if kind == "tasks" else []
        if names:
            _try([*ctr, kind, "delete", *flags, *names])
    return not found


def _try(command: list[str]) -> None:
    """Some may have ended by themselves meanwhile: the next look shows what is left."""
    try:
        run(command)
    except DevError:
        return
