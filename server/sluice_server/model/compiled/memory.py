"""How much memory the container may still take: a compiler that exceeds the limit would take the server with it."""

from pathlib import Path

# What compiling a small model took at its peak, beside the server: 1.2 GiB; a larger one's weights come on top.
NEEDED_BYTES = 3 << 29
_CGROUP = Path("/sys/fs/cgroup")
# Version 1 says a number beyond it where there is no limit.
_NO_LIMIT = 1 << 60


def free_bytes(cgroup: Path = _CGROUP) -> int | None:
    """Bytes below the limit of the cgroup, by version 2 or else 1; None where there is no limit, or nobody says.

    What files keep in the page cache counts as free where nobody uses it now, as in the kubelet's working set: a model
    that was just downloaded fills the cache, and the kernel gives it up to whoever needs memory.
    """
    try:
        if (cgroup / "memory.max").exists():
            return _free(cgroup, "memory.max", "memory.current", "inactive_file")
        return _free(cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    except (OSError, ValueError):
        return None


def shortage(needed_bytes: int, what: str) -> str | None:
    """What to do where the limit leaves less than something needs that makes faster code; None where it does not."""
    free = free_bytes()
    if free is None or free >= needed_bytes:
        return None
    return (
        f"{what} needs {needed_bytes >> 20} MiB and the memory limit leaves {free >> 20}; "
        "raise the limit, or share a cache with a pod that has built it (MODEL_CACHE_DIR)"
    )


def _free(folder: Path, limit_file: str, used_file: str, given_up: str) -> int | None:
    limit = (folder / limit_file).read_text().strip()
    if limit == "max" or int(limit) > _NO_LIMIT:
        return None
    described = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(limit) - int((folder / used_file).read_text()) + int(described.get(given_up, 0))
