"""What the GPU can do at most, measured in the same run."""

from collections.abc import Callable

import torch

_RUNS = 20


def matrix_tflops() -> float:
    """bfloat16, 8,192 cubed, random values, in TFLOP/s."""
    size = 8192
    factor = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    return 2 * size**3 / _median_seconds(lambda: factor @ factor) / 1e12


def copy_terabytes() -> float:
    """From and to the device's memory, bytes read and written, in TB/s."""
    size = 1 << 31
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / _median_seconds(lambda: target.copy_(source)) / 1e12


def _median_seconds(run: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(_RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return sorted(times)[_RUNS // 2]
