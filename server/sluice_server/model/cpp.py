"""C++ of our own, built where it runs, for the CPU that it runs on."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-std=c++20",
    "-shared", "-fPIC",
)  # fmt: skip
_BUILD_SECONDS = 300
_CPU_FACTS = Path("/proc/cpuinfo")


class BuildError(RuntimeError):
    """The compiler is missing, or refused; the text is what it said."""


def compiler() -> str | None:
    """The C++ compiler that torch would use, too; None where there is none."""
    return shutil.which("g++")


def cpu() -> list[str]:
    """All that decides which instructions the compiler takes: a part of the key of whatever is kept."""
    capabilities = [f"{name}={value}" for name, value in sorted(torch.cpu.get_capabilities().items())]
    try:
        facts = _CPU_FACTS.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return capabilities
    named = ("flags", "Features", "vendor_id", "cpu family", "model\t")
    return capabilities + [line for line in facts if line.startswith(named)]


def build(sources: Sequence[Path], to: Path, *more: str) -> None:
    """Compiles a shared library; it is there whole or not at all, whoever else builds it meanwhile.

    Args:
        sources: Of the library.
        to: Where it is put.
        more: For the compiler, behind the usual flags and the sources.

    Raises:
        BuildError: There is no compiler, or it failed.
        OSError: The folder cannot be written.
    """
    found = compiler()
    if found is None:
        raise BuildError("no g++ on the PATH")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=to.parent) as room:
        made = Path(room) / to.name
        command = ["nice", "-n", "19", found, *FLAGS, *map(str, sources), "-o", str(made), *more]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"g++ took more than {_BUILD_SECONDS} s") from error
        if done.returncode != 0:
            raise BuildError(f"g++ ended with {done.returncode}: {done.stderr[-500:]}")
        os.replace(made, to)  # noqa: PTH105 - says that it replaces
