"""How much memory the container may still take: a compiler that exceeds the limit would take the server with it."""

from pathlib import Path

# What compiling a small model took at its peak, beside the server: 1.2 GiB; a larger one's weights come on top.
NEEDED_BYTES = 3 << 29
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(cgroup: Path = _CGROUP) -> int | None:
    """Bytes below the limit of the cgroup (version 2); None where there is no limit, or nobody says.

    What files keep in the page cache counts as free where nobody uses it now, as in the kubelet's working set: a model
    that was just downloaded fills the cache, and the kernel gives it up to whoever needs memory.
    """
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return None
        described = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        used = int((cgroup / "memory.current").read_text()) - int(described.get("inactive_file", 0))
        return int(limit) - used
    except (OSError, ValueError):
        return None
