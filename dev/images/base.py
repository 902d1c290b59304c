"""The local base image: Debian with Python, made by debootstrap where no public image can be pulled."""

import shutil
import tempfile
from pathlib import Path

from dev.console import run, step, succeeds
from dev.images.buildah import buildah

_RELEASE = "bookworm"
# Raise the last number when what is installed changes.
BASE_IMAGE = f"localhost/sluice-base:{_RELEASE}-2"
_PACKAGES = "python3,python3-venv,ca-certificates"
_NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")


def ensure_base_image() -> str:
    """The name of the base image, built first if it is not in the local storage."""
    if succeeds(buildah("inspect", "--type", "image", BASE_IMAGE)):
        return BASE_IMAGE
    with step(f"base image {BASE_IMAGE} (debootstrap)"), tempfile.TemporaryDirectory(prefix="sluice-base-") as folder:
        root = Path(folder) / "root"
        run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _RELEASE, root], timeout_seconds=900)
        _slim(root)
        run(["tar", "-C", root, "-cf", Path(folder) / "root.tar", "."], timeout_seconds=300)
        container = run(buildah("from", "scratch")).strip()
        run(buildah("add", container, str(Path(folder) / "root.tar"), "/"), timeout_seconds=300)
        run(buildah("commit", "--rm", container, BASE_IMAGE), timeout_seconds=300)
    return BASE_IMAGE


def _slim(root: Path) -> None:
    """Leaves out caches and manuals, and makes `python` a name for `python3`, as public Python images do."""
    for name in _NOT_NEEDED:
        for child in (root / name).iterdir():
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    (root / "usr/bin/python").symlink_to("python3")
    # debootstrap copies these from the machine that it runs on; a container gets its own.
    for name in ("etc/resolv.conf", "etc/hostname"):
        (root / name).write_text("")
