"""The engine's C++: built where it runs, for the CPU that it runs on, and kept in a cache."""

import ctypes
import hashlib
import json
from pathlib import Path

import torch

from sluice_server.model import cpp

SOURCE = Path(__file__).parent / "encoder.cpp"
HEADERS = sorted(Path(__file__).parent.glob("*.h"))


def locate(cache_dir: str) -> Path:
    """Where the library of these sources for this CPU is, or will be."""
    said = [cpp.FLAGS, [path.read_text() for path in (SOURCE, *HEADERS)], cpp.cpu()]
    key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
    return Path(cache_dir) / "native" / f"{key}.so"


def build(to: Path, *flags: str) -> None:
    """Compiles the library. Without sizes of tensors or of anything else: one serves every model.

    Args:
        to: Where it is put.
        flags: Of the compiler, behind the usual ones.

    Raises:
        BuildError: There is no compiler, or it failed.
        OSError: The folder cannot be written.
    """
    cpp.build([SOURCE], to, *flags)


def load(path: Path) -> ctypes.CDLL:
    """The library; its calls run without Python's lock.

    Raises:
        OSError: It is not a library.
    """
    # Loaded before, torch's own OpenMP is the one that the library finds: one pool of threads for both.
    assert torch.get_num_threads()
    loaded = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.sluice_kept_bytes.restype, loaded.sluice_kept_bytes.argtypes = number, [number]
    loaded.sluice_weight_bytes.restype, loaded.sluice_weight_bytes.argtypes = number, [number, pointer]
    loaded.sluice_open.restype, loaded.sluice_open.argtypes = pointer, [number, pointer]
    loaded.sluice_add_layer.restype, loaded.sluice_add_layer.argtypes = number, [pointer, pointer]
    loaded.sluice_run.restype, loaded.sluice_run.argtypes = number, [pointer, pointer, number]
    loaded.sluice_close.restype, loaded.sluice_close.argtypes = None, [pointer]
    return loaded
