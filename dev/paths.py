"""Where things are: the repository, the state of the cluster, and the cache that outlives both."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".cluster"


def cache_folder() -> Path:
    """Everything that is slow to make and keyed by version; safe to delete."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice"
    return Path(os.environ.get("SLUICE_CACHE_DIR") or default)
