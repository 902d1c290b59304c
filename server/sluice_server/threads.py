"""How many threads the cgroup really gives, set before torch is imported, as OpenMP reads it once; who goes first."""

import os
import sys
import threading
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# Of the threads that compute: a sixth of the weight of the others.
DEVICE_NICENESS = 8
# Linux knows no lower priority.
_MOST = 19


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """Whole CPUs within affinity and quota, at least 1: more threads than quota are throttled."""
    quota = _quota(cgroup)
    affinity = len(os.sched_getaffinity(0))
    return max(1, min(affinity, int(quota) if quota else affinity))


def set_thread_count() -> None:
    """Leaves a user's own OMP_NUM_THREADS alone."""
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cpus()))
    # Threads that wait must sleep: where a neighbour has the other core, OpenMP's default of spinning made the
    # same batch 20 times slower (two cores, a busy host: 1500 ms against 80 ms).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Tokenizers are called from threads of ours, each with its own texts.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def yield_cores(niceness: int) -> None:
    """The calling thread, and whatever it starts from now on, goes behind the others of this pod by so much.

    Linux keeps a niceness per thread, new threads and processes inherit it, and it counts within the pod's own cgroup.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        # Upwards only: who was started with less priority may not take any back.
        os.setpriority(os.PRIO_PROCESS, thread, min(_MOST, os.getpriority(os.PRIO_PROCESS, thread) + niceness))


def _quota(cgroup: Path) -> float | None:
    """CPUs' worth of time, by cgroup version 2 or else 1; None where there is no limit, or nobody says."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        return None if quota.strip() in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None
