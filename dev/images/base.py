"""The local base images: Debian with Python, made by debootstrap where no public image can be pulled."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dev.console import run, step, succeeds
from dev.images.buildah import buildah

_RELEASE = "bookworm"
_NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")


@dataclass(frozen=True, slots=True)
class Base:
    """A base image. Raise the number in its name when what is installed changes."""

    name: str
    packages: tuple[str, ...]


_PYTHON = ("python3", "python3-venv", "ca-certificates")
PYTHON = Base(f"localhost/sluice-base:{_RELEASE}-2", _PYTHON)
# The server compiles its model for the CPU that it finds.
PYTHON_AND_COMPILER = Base(f"localhost/sluice-base-compiler:{_RELEASE}-1", (*_PYTHON, "g++"))


def ensure_base_image(base: Base) -> str:
    """The name of the base image, built first if it is not in the local storage."""
    if succeeds(buildah("inspect", "--type", "image", base.name)):
        return base.name
    with step(f"base image {base.name} (debootstrap)"), tempfile.TemporaryDirectory(prefix="sluice-base-") as folder:
        root = Path(folder) / "root"
        included = ",".join(base.packages)
        run(["debootstrap", "--variant=minbase", f"--include={included}", _RELEASE, root], timeout_seconds=900)
        _slim(root)
        run(["tar", "-C", root, "-cf", Path(folder) / "root.tar", "."], timeout_seconds=300)
        container = run(buildah("from", "scratch")).strip()
        run(buildah("add", container, str(Path(folder) / "root.tar"), "/"), timeout_seconds=300)
        run(buildah("commit", "--rm", container, base.name), timeout_seconds=300)
    return base.name


def _slim(root: Path) -> None:
    """Leaves out caches and manuals, and makes `python` a name for `python3`, as public Python images do."""
    for name in _NOT_NEEDED:
        for child in (root / name).iterdir():
            shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    (root / "usr/bin/python").symlink_to("python3")
    # debootstrap copies these from the machine that it runs on; a container gets its own.
    for name in ("etc/resolv.conf", "etc/hostname"):
        (root / name).write_text("")
