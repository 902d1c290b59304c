"""Builds an image when, and only when, something that goes into it has changed."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.console import run, step, succeeds
from dev.images.base import PYTHON, PYTHON_AND_COMPILER, Base, ensure_base_image
from dev.images.buildah import buildah
from dev.paths import ROOT

_VERSION = "0.1.0"
# Builds of an image that are kept: to go back to yesterday's branch costs nothing, and the disk does not fill.
_KEPT_BUILDS = 3
# Of the host, seen by the build and left out of the image: how packages are reached from here.
_HOST_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


@dataclass(frozen=True, slots=True)
class Image:
    """One of our images and what goes into it.

    Attributes:
        name: Without registry and tag.
        base: Where no public image can be pulled.
        dockerfile: Relative to the repository's root.
        sources: Files and folders that the Dockerfile copies.
    """

    name: str
    base: Base
    dockerfile: str
    sources: tuple[str, ...]

    def tag(self, root: Path = ROOT) -> str:
        """A digest of everything that goes in: the same sources have the same tag on every machine."""
        digest = hashlib.sha256(f"{self.base.name} {_VERSION}".encode())
        for path in sorted(_files(root, (self.dockerfile, *self.sources))):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:12]


SERVER = Image(
    "sluice-server",
    PYTHON_AND_COMPILER,
    "Dockerfile.server",
    (
        "dev/locks/tools.txt", "dev/locks/server.txt", "proto/sluice", "proto/gpu_inference",
        "server/sluice_server", "client/sluice_client",
    ),
)  # fmt: skip
OPERATOR = Image(
    "sluice-operator",
    PYTHON,
    "Dockerfile.operator",
    ("dev/locks/tools.txt", "dev/locks/operator.txt", "operator/sluice_operator"),
)


def build(image: Image) -> str:
    """Builds the image unless its tag is there already; returns its local name.

    Raises:
        DevError: The build failed; the message holds its last lines.
    """
    local = f"localhost/{image.name}:{image.tag()}"
    if succeeds(buildah("inspect", "--type", "image", local)):
        return local
    base = os.environ.get("BASE_IMAGE") or ensure_base_image(image.base)
    with step(f"building {local}"):
        volumes = [f"--volume={path}:{path}:ro" for path in _HOST_FILES if Path(path).exists()]
        run(
            buildah(
                "bud", "--layers", *volumes, f"--build-arg=BASE_IMAGE={base}", f"--build-arg=VERSION={_VERSION}",
                f"--file={image.dockerfile}", f"--tag={local}", ".",
            ),
            timeout_seconds=1800,
            folder=ROOT,
        )  # fmt: skip
    _forget_older_builds(image)
    return local


def older_builds(listed: list[dict[str, Any]], image: Image) -> list[str]:
    """Names of the image's builds but the newest, from what `buildah images --json` lists."""
    prefix = f"localhost/{image.name}:"
    builds = [(one["created"], name) for one in listed for name in one["names"] or () if name.startswith(prefix)]
    return [name for _, name in sorted(builds, reverse=True)[_KEPT_BUILDS:]]


def _forget_older_builds(image: Image) -> None:
    names = older_builds(json.loads(run(buildah("images", "--json"))), image)
    if names:
        with step(f"removing {len(names)} older builds of {image.name}"):
            run(buildah("rmi", *names), timeout_seconds=300)


def _files(root: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = root / name
        if path.is_file():
            yield path
        else:
            yield from (p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
