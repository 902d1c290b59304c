"""The engine's C++: built where it runs, for the CPU that it runs on, and kept in a cache."""

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).parent / "encoder.cpp"
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
# Without sizes of tensors or of anything else: one library serves every model.
_FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-std=c++20",
    "-shared", "-fPIC",
)  # fmt: skip
_BUILD_SECONDS = 120
_CPU_FACTS = Path("/proc/cpuinfo")


class BuildError(RuntimeError):
    """The compiler is missing, or refused; the text is what it said."""


def locate(cache_dir: str) -> Path:
    """Where the library of these sources for this CPU is, or will be."""
    said = [_FLAGS, [path.read_text() for path in (SOURCE, *HEADERS)], _cpu()]
    key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
    return Path(cache_dir) / "native" / f"{key}.so"


def build(to: Path, *flags: str) -> None:
    """Compiles the library; it is there whole or not at all, whoever else builds it meanwhile.

    Args:
        to: Where it is put.
        flags: Of the compiler, behind the usual ones.

    Raises:
        BuildError: There is no compiler, or it failed.
        OSError: The folder cannot be written.
    """
    found = shutil.which("g++")
    if found is None:
        raise BuildError("no g++ on the PATH")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=to.parent) as room:
        made = Path(room) / to.name
        command = ["nice", "-n", "19", found, *_FLAGS, *flags, str(SOURCE), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"g++ took more than {_BUILD_SECONDS} s") from error
        if done.returncode != 0:
            raise BuildError(f"g++ ended with {done.returncode}: {done.stderr[-500:]}")
        os.replace(made, to)  # noqa: PTH105 - says that it replaces


def load(path: Path) -> ctypes.CDLL:
    """The library; its calls run without Python's lock.

    Raises:
        OSError: It is not a library.
    """
    # Loaded before, torch's own OpenMP is the one that the library finds: one pool of threads for both.
    assert torch.get_num_threads()
    loaded = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.sluice_open.restype, loaded.sluice_open.argtypes = pointer, [number, pointer]
    loaded.sluice_add_layer.restype, loaded.sluice_add_layer.argtypes = number, [pointer, pointer]
    loaded.sluice_run.restype = number
    loaded.sluice_run.argtypes = [pointer, pointer, pointer, pointer, number, number, pointer]
    loaded.sluice_close.restype, loaded.sluice_close.argtypes = None, [pointer]
    return loaded


def _cpu() -> list[str]:
    """All that decides which instructions the compiler takes."""
    capabilities = [f"{name}={value}" for name, value in sorted(torch.cpu.get_capabilities().items())]
    try:
        facts = _CPU_FACTS.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return capabilities
    named = ("flags", "Features", "vendor_id", "cpu family", "model\t")
    return capabilities + [line for line in facts if line.startswith(named)]
