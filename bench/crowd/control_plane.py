"""A real control plane, etcd and an API server, that this machine runs for the crowd."""

import subprocess
import sys
from pathlib import Path

from dev.cluster.processes import Processes
from dev.paths import ROOT

API_SERVER = "kube-apiserver"


def up(state: Path) -> None:
    """Starts what of it does not run; its records lie in the folder `state`."""
    _dev_cluster("up", "--mode", "control-plane", "--state-dir", str(state))


def down(state: Path) -> None:
    """Ends it."""
    _dev_cluster("down", "--state-dir", str(state))


def pids(state: Path) -> dict[str, int]:
    """Of its processes, by name, as they were started last."""
    processes = Processes(state)
    return {name: found.pid for name in (API_SERVER, "etcd") if (found := processes.identity(name)) is not None}


def _dev_cluster(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dev.cluster", *arguments], cwd=ROOT, stdout=sys.stderr, check=True)
