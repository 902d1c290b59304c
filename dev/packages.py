"""The Debian packages behind the tools: named when they are missing, installed when that is wished."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dev.console import DevError, run, step

# Program (or file) to package.
FOR_CLUSTER: Mapping[str, str] = {
    "openssl": "openssl",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "containerd": "containerd",
    "runc": "runc",
    "docker-registry": "docker-registry",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
FOR_IMAGES: Mapping[str, str] = {"buildah": "buildah", "debootstrap": "debootstrap"}


def ensure(programs: Mapping[str, str]) -> None:
    """Checks that every program is there; installs what is missing if SLUICE_INSTALL_PACKAGES is set.

    Raises:
        DevError: Something is missing; the message holds the one command that mends it.
    """
    missing = sorted({package for program, package in programs.items() if not _is_there(program)})
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if not os.environ.get("SLUICE_INSTALL_PACKAGES"):
        raise DevError(
            f"missing: {', '.join(missing)}. On Debian: {' '.join(install)} (or set SLUICE_INSTALL_PACKAGES=1)"
        )
    with step(f"installing {' '.join(missing)}"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment, timeout=300)
        run(install, timeout_seconds=600, environment=environment)


def _is_there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None
