"""How many front ends a server has."""

from pathlib import Path
from typing import Literal

# Beside one H200 four served 4.4 to 3.4 times as much as none, and eight 1.15 to 1.01 times as much as four:
# from there on the main process's one core is the limit. bench/results/front_ends.jsonl
_MOST = 4
# Itself, its share of the tokenizers' threads, and its share of the main process.
_CPUS_EACH = 3
_NVIDIA_DRIVER = Path("/dev/nvidiactl")


def front_end_count(wanted: int | Literal["auto"], *, on_gpu: bool, cpus: int) -> int:
    """As many as are wanted; where nobody says, none on a CPU, whose cores are the device, and few beside a GPU.

    Args:
        wanted: FRONT_ENDS.
        on_gpu: Whether the model is computed on a GPU.
        cpus: Whole ones of this process.
    """
    if wanted != "auto":
        return wanted
    return min(_MOST, cpus // _CPUS_EACH) if on_gpu else 0


def takes_gpu(device: str) -> bool:
    """Whether DEVICE will be a GPU, as far as that is seen before torch is imported, which takes seconds."""
    return device == "cuda" or (device == "auto" and _NVIDIA_DRIVER.exists())
