"""`python3 -m dev.cluster up|down|status|binaries`."""

import argparse
import os
from pathlib import Path

from dev.cluster import lifecycle, prerequisites, status
from dev.cluster.binaries import ensure_binaries
from dev.cluster.layout import Mode, layout, recorded_mode
from dev.console import main_guard
from dev.paths import STATE

_COMMANDS = """
  up        start the cluster, or mend what is not well; harmless when all is
  down      stop it and leave nothing but its logs; images stay in the cache
  status    each daemon and how to use the cluster; exit code 0 only if all is well
  binaries  build what is missing and print where each program is
"""


def main() -> int:
    """Runs the command line; 0 when all is well."""
    options = _parser().parse_args()
    if options.install:
        os.environ["SLUICE_INSTALL_PACKAGES"] = "1"
    mode = Mode(options.mode) if options.mode else recorded_mode(options.state_dir)
    if options.command == "binaries":
        return _binaries(mode)
    place = layout(mode, options.state_dir)
    if options.command == "up":
        lifecycle.up(place)
    elif options.command == "down":
        lifecycle.down(place)
    else:
        return 0 if status.show(place) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python3 -m dev.cluster",
        description="A real Kubernetes on this machine.",
        epilog=f"commands:{_COMMANDS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["up", "down", "status", "binaries"])
    parser.add_argument("--state-dir", type=Path, default=STATE, help="default: .cluster in the repository")
    parser.add_argument(
        "--mode",
        choices=list(Mode),
        help="full: with a node, needs root; control-plane: the API server and its controllers, no root; "
        "several may be up at once. Default: what the state folder holds, else full",
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="install missing Debian packages (as SLUICE_INSTALL_PACKAGES=1 does)",
    )
    return parser


def _binaries(mode: Mode) -> int:
    programs = lifecycle.programs(mode)
    prerequisites.check(Mode.CONTROL_PLANE, programs)
    for name, path in ensure_binaries(programs).items():
        print(f"  {name:24} {path}")
    return 0


if __name__ == "__main__":
    main_guard(main)
