"""Sluice's own operators for CPUs, in C++: built where they run, for the CPU that they run on."""

import threading
from pathlib import Path

import torch

from sluice_server.model import cpp
from sluice_server.model.native import library as native

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
# The attention itself is the native engine's.
_HEADERS = native.HEADERS
# The kernel computes whole vectors, of sixteen at most.
_LANES = 16
_loading = threading.Lock()


def source_text() -> str:
    """All that decides what is built, for a cache's key."""
    return "\n".join([*cpp.FLAGS, *(path.read_text() for path in (*SOURCES, *_HEADERS))])


def build(to: Path) -> None:
    """Compiles the operators into a shared library.

    Raises:
        BuildError: There is no compiler, or it failed.
    """
    root = Path(torch.__file__).parent
    includes = (f"-I{_HEADERS[0].parent}", f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include")
    cpp.build(SOURCES, to, *includes, f"-L{root}/lib", "-ltorch_cpu", "-lc10")


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
