"""Sluice's own operators for CPUs, in C++: built where they run, for the CPU that they run on."""

import shutil
import subprocess
import threading
from pathlib import Path

import torch

from sluice_server.model.native import library as native

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
# The attention itself is the native engine's.
_HEADERS = native.HEADERS
_FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-std=c++20",
    "-shared", "-fPIC",
)  # fmt: skip
_BUILD_SECONDS = 300
# The kernel computes whole vectors of sixteen.
_LANES = 16
_loading = threading.Lock()


class BuildError(RuntimeError):
    """The compiler refused; the text is what it said."""


def compiler() -> str | None:
    """The C++ compiler that torch would use, too; None where there is none."""
    return shutil.which("g++")


def source_text() -> str:
    """All that decides what is built, for a cache's key."""
    return "\n".join([*_FLAGS, *(path.read_text() for path in (*SOURCES, *_HEADERS))])


def build(to: Path) -> None:
    """Compiles the operators into a shared library.

    Raises:
        BuildError: There is no compiler, or it failed.
    """
    found = compiler()
    if found is None:
        raise BuildError("no g++ on the PATH")
    root = Path(torch.__file__).parent
    includes = (f"-I{_HEADERS[0].parent}", f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include")
    command = [found, *_FLAGS, *includes, *map(str, SOURCES), "-o", str(to), f"-L{root}/lib", "-ltorch_cpu", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    if done.returncode != 0:
        raise BuildError(f"g++ ended with {done.returncode}: {done.stderr[-500:]}")


def load(path: Path) -> None:
    """Makes the operators known to torch, under torch.ops.sluice_native; once in a process, as torch ends it otherwise.

    Raises:
        OSError: It is not a library.
    """
    with _loading:
        if not hasattr(torch.ops.sluice_native, "forward"):
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]


def takes(head_dim: int, dtype: torch.dtype) -> bool:
    """Whether the attention operator computes such heads."""
    return head_dim % _LANES == 0 and dtype in (torch.float32, torch.bfloat16)
