"""How much memory the container may still take: a compiler that exceeds the limit would take the server with it."""

from pathlib import Path

# What compiling a small model took at its peak, beside the server: 1.2 GiB; a larger one's weights come on top.
NEEDED_BYTES = 3 << 29
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(cgroup: Path = _CGROUP) -> int | None:
    """Bytes below the limit of the cgroup (version 2); None where there is no limit, or nobody says."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return None
        return int(limit) - int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return None
