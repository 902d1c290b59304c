"""The cluster's programs: taken from KUBE_BIN_DIR, or built from Go modules once and kept in the cache."""

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from dev.cluster.versions import Program
from dev.console import DevError, run, step
from dev.paths import ROOT, cache_folder

_GO_MINIMUM = (1, 24)


def ensure_binaries(programs: Iterable[Program]) -> Mapping[str, Path]:
    """Paths of all programs by name; builds what is missing, one progress line each.

    Raises:
        DevError: A build failed.
    """
    paths = {program.name: (program, find(program)) for program in programs}
    for program, target in paths.values():
        if not target.exists():
            with step(f"building {program.name} {program.version} (once; up to some minutes)"):
                _build(program, target)
    return {name: target for name, (_, target) in paths.items()}


def find(program: Program) -> Path:
    """Where the program is, or will be once it is built."""
    own = os.environ.get("KUBE_BIN_DIR")
    if own and (Path(own) / program.name).exists():
        return (Path(own) / program.name).absolute()
    return cache_folder().absolute() / "bin" / f"{program.name}-{program.key}" / program.name


def go_problem() -> str | None:
    """Why nothing can be built on this machine; None where it can."""
    mend = "install it and put it on PATH, or name a folder of ready binaries with KUBE_BIN_DIR"
    try:
        said = run(["go", "env", "GOVERSION"])
    except DevError:
        return f"Go 1.24 or later, to build Kubernetes: {mend}"
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) < _GO_MINIMUM:
        return f"Go 1.24 or later, to build Kubernetes; there is {said.strip()}: {mend}"
    return None


def _build(program: Program, target: Path) -> None:
    """Builds beside the target and renames it: a broken build leaves nothing half done."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix=f".{program.name}-") as folder:
        output = Path(folder) / program.name
        # The environment of a developer's own Go work does not belong in a pinned build.
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOWORK": "off",
            "GOFLAGS": "-buildvcs=false -mod=readonly",
        }
        run(
            ["go", "build", "-trimpath", f"-ldflags={program.ldflags}", "-o", output, program.package],
            timeout_seconds=1800, environment=environment, folder=ROOT / "dev" / "go" / program.module,
        )  # fmt: skip
        target.parent.mkdir(exist_ok=True)
        output.rename(target)
