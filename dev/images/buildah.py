"""How buildah is called on a machine without a Docker engine."""

import os

# chroot isolation and overlay storage need no engine, no systemd and no extra capability.
os.environ.setdefault("BUILDAH_ISOLATION", "chroot")
os.environ.setdefault("STORAGE_DRIVER", "overlay")


def buildah(*arguments: str) -> list[str]:
    """A buildah command line."""
    return ["buildah", *arguments]
