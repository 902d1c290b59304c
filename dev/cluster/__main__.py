"""`python3 -m dev.cluster up|down|status`."""

import argparse
import json
from pathlib import Path

from dev.cluster import lifecycle
from dev.cluster.layout import Layout, Mode, layout
from dev.cluster.processes import Processes
from dev.console import main_guard
from dev.paths import STATE


def main() -> int:
    """Runs the command line; 0 when all is well."""
    options = _parser().parse_args()
    mode = Mode(options.mode) if options.mode else _recorded_mode(options.state_dir)
    place = layout(mode, options.state_dir)
    if options.command == "up":
        lifecycle.up(place)
    elif options.command == "down":
        lifecycle.down(place)
    else:
        return _status(place)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python3 -m dev.cluster", description="A real Kubernetes on this machine.")
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--state-dir", type=Path, default=STATE, help="where it lives; default: .cluster")
    parser.add_argument(
        "--mode", choices=list(Mode), help="full (default): with a node, as root; control-plane: the API server only"
    )
    return parser


def _recorded_mode(state: Path) -> Mode:
    """What the state folder holds, unless said otherwise."""
    return Mode.CONTROL_PLANE if (state / "ports.json").exists() else Mode.FULL


def _status(place: Layout) -> int:
    processes = Processes(place.state)
    for name in processes.names():
        pid = processes.pid(name)
        state = f"running, pid {pid}" if pid else "NOT RUNNING"
        print(f"  {name:24} {state:24} {place.logs / name}.log")
    if not lifecycle.is_healthy(place):
        print(f"  the cluster in {place.state} is not up; `up` starts it or mends it")
        return 1
    facts = json.loads(place.facts.read_text())
    print(f"  the cluster is up: {place.api_url}")
    print(f"  export KUBECONFIG={place.kubeconfig} PATH={Path(facts['kubectl']).parent}:$PATH")
    return 0


if __name__ == "__main__":
    main_guard(main)
