"""The programs of the cluster: taken from KUBE_BIN_DIR, or built from Go modules once and kept in the cache."""

import os
import shutil
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
        DevError: Go is missing, or a build failed.
    """
    paths = {program.name: _find(program) for program in programs}
    missing = [program for program in programs if not paths[program.name].exists()]
    if missing:
        _check_go()
    for program in missing:
        with step(f"building {program.name} {program.version}"):
            _build(program, paths[program.name])
    return paths


def _find(program: Program) -> Path:
    own = os.environ.get("KUBE_BIN_DIR")
    if own and (Path(own) / program.name).exists():
        return Path(own) / program.name
    return cache_folder() / "bin" / f"{program.name}-{program.version}" / program.name


def _check_go() -> None:
    if shutil.which("go") is None:
        raise DevError(
            "missing: Go 1.24 or later, to build Kubernetes. Put it on PATH, or name a folder of binaries: KUBE_BIN_DIR"
        )
    words = run(["go", "env", "GOVERSION"]).strip().removeprefix("go").split(".")
    if (int(words[0]), int(words[1])) < _GO_MINIMUM:
        raise DevError(f"Go {'.'.join(words)} is too old: 1.24 or later is needed to build Kubernetes")


def _build(program: Program, target: Path) -> None:
    """Builds into a folder beside the target and renames it: a broken build leaves nothing half done."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix=f".{program.name}-") as folder:
        environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": folder, "GOFLAGS": "-buildvcs=false"}
        if program.module is None:
            command = [
                "go",
                "install",
                "-trimpath",
                f"-ldflags={program.ldflags}",
                f"{program.package}@{program.version}",
            ]
            cwd = ROOT
        else:
            output = str(Path(folder) / program.name)
            command = ["go", "build", "-trimpath", f"-ldflags={program.ldflags}", "-o", output, program.package]
            cwd = ROOT / "dev" / "go" / program.module
        run(command, timeout_seconds=1800, environment=environment, folder=cwd)
        target.parent.mkdir(exist_ok=True)
        (Path(folder) / program.name).rename(target)
