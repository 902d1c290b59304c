"""What outlives the daemons: containers and their shims, mounts, cgroups and links to logs."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

from dev.cluster import network
from dev.cluster.layout import CGROUP, CONTAINERD_SOCKET, RUNTIME, Layout
from dev.console import succeeds, wait_until

_CGROUPS = Path("/sys/fs/cgroup")
# The kubelet puts a link to each container's log here, wherever the logs are.
_LOG_LINKS = Path("/var/log/containers")


def clear_machine(layout: Layout) -> None:
    """Ends containers that are left, and removes their mounts, cgroups, network and runtime files."""
    wait_until(_no_containers, what="the containers end", within_seconds=20)
    mine = (f"{RUNTIME}/", f"{layout.kubelet}")
    wait_until(lambda: _no_mounts(mine), what="the mounts are gone", within_seconds=20)
    wait_until(_no_cgroups, what="the cgroups are gone", within_seconds=20)
    network.remove_namespace()
    _remove_log_links(layout)
    shutil.rmtree(RUNTIME, ignore_errors=True)


def _no_containers() -> bool:
    """Kills every process of our pods and their shims, which outlive containerd; True once none is left."""
    found = [*_processes_of_pods(), *_shims()]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not found


def _processes_of_pods() -> Iterable[int]:
    for folder in _cgroup_folders():
        with contextlib.suppress(OSError):
            pids = (folder / "cgroup.procs").read_text().split()
            # 0 stands for a process of another pid namespace; as an argument of kill it means ourselves.
            yield from (int(pid) for pid in pids if pid != "0")


def _shims() -> Iterable[int]:
    """Shims of this very containerd: its socket stands in their command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if "containerd-shim" in words[0] and str(CONTAINERD_SOCKET) in words:
                yield int(path.parent.name)


def _no_mounts(prefixes: tuple[str, ...]) -> bool:
    """Unmounts everything below the prefixes; True once nothing is mounted there."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = sorted((point for point in points if point.startswith(prefixes)), reverse=True)
    for point in ours:
        succeeds(["umount", "-l", point])
    return not ours


def _no_cgroups() -> bool:
    """Removes our cgroups, children first; True once none is left."""
    for folder in sorted(_cgroup_folders(), key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return not _cgroup_folders()


def _cgroup_folders() -> list[Path]:
    """Ours in each hierarchy of version 1, or in the only one of version 2."""
    roots = [root for root in (_CGROUPS / CGROUP, *_CGROUPS.glob(f"*/{CGROUP}")) if root.is_dir()]
    return [folder for root in roots for folder in (root, *(path for path in root.rglob("*") if path.is_dir()))]


def _remove_log_links(layout: Layout) -> None:
    for link in _LOG_LINKS.glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{layout.pod_logs}/"):
            link.unlink()
