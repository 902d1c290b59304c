"""What a run was made on: enough to judge it, nothing that names the machine."""

import importlib.metadata
import os
import platform
import re
import timeit
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16")
_PACKAGES = ("torch", "transformers", "sentence-transformers", "grpcio", "coral-gpu-inference", "numpy")
_PEER_PACKAGES = ("infinity-emb", "torch", "transformers", "onnxruntime", "openvino")


def describe(peer_lock: Path) -> dict[str, Any]:
    """CPU, memory and versions."""
    cpu = Path("/proc/cpuinfo").read_text()
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    flags = set(_first(cpu, "flags").split())
    return {
        "cpu": f"{_first(cpu, 'model name')}, family {_first(cpu, 'cpu family')}, model {_first(cpu, 'model')}",
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "python": f"{platform.python_version()} (a fixed piece of it takes {_python_milliseconds():.0f} ms)",
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "peer_versions": locked_versions(peer_lock.read_text()),
    }


def locked_versions(lock: str) -> Mapping[str, str]:
    """Of the packages that matter, in a lock file."""
    found = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock, re.MULTILINE))
    return {name: found[name] for name in _PEER_PACKAGES if name in found}


def processor_time() -> tuple[int, int, int]:
    """Ticks so far of all cores: all, stolen by the host, and idle."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields[:8]), fields[7], fields[3] + fields[4]


def _python_milliseconds() -> float:
    """Of numbers, calls and strings.

    The same version is slower by half where its compiler was given no profile; distributions give it one, as of the
    Python in Sluice's images.
    """
    return 1000 * min(timeit.repeat(_python_piece, number=1, repeat=7))


def _python_piece() -> None:
    kept = {}
    for number in range(100_000):
        kept[number & 1023] = (complex(number, 1), f"{number:.0f} ms", max(number, 1))


def _first(text: str, key: str) -> str:
    found = re.search(rf"^{re.escape(key)}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else "unknown"
