"""`python -m bench.crowd [PODS] [SERVICES] [SECONDS]`: one operator, a real control plane, and a crowd of pods.

kwok plays nodes and pods, one process answers /health for all. Runs as root in a network namespace of its own, in
which every address of the pods is this host's; it goes with the last process in it. The operator's CPU is counted
by the kernel, how regularly it asks by those whom it asks, and its gates as the API server tells of them.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.crowd import progress
from bench.crowd.crowd import POD_ADDRESSES, running
from bench.crowd.measures import api_server, one_pod, steady, storm
from dev.cluster import binaries, versions
from tests.operator.fake_nodes import kwok

_INSIDE = "--inside"


def main() -> None:
    """Prints the figures as JSON."""
    words = [word for word in sys.argv[1:] if word != _INSIDE]
    if _INSIDE not in sys.argv:
        _enter_namespace(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is taken down
    for command in ("ip link set lo up", f"ip route add local {POD_ADDRESSES} dev lo"):
        subprocess.run(command.split(), check=True)
    pods, services, seconds = (int(one) for one in (words + ["1000", "50", "60"][len(words) :])[:3])
    with tempfile.TemporaryDirectory(prefix="sluice-crowd-") as folder, running(Path(folder), pods, services) as crowd:
        figures: dict[str, Any] = {"pods": pods, "services": services, "start": crowd.start()}
        for measure in (steady, one_pod, storm, api_server):
            figures[measure.__name__] = measure(crowd, seconds)
            progress.show(f"{measure.__name__}: {json.dumps(figures[measure.__name__])}")
    print(json.dumps(figures, indent=1))


def _enter_namespace(words: list[str]) -> None:
    if os.geteuid() != 0:
        raise SystemExit("bench.crowd makes a network namespace for its pods' addresses: run it as root")
    # Built here: inside, no module can be had.
    kwok()
    binaries.ensure_binaries(versions.CONTROL_PLANE)
    os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "bench.crowd", _INSIDE, *words])


if __name__ == "__main__":
    main()
