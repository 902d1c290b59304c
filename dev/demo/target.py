"""The cluster that the demo runs on: the local one, or the one of the current kubectl context."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from dev.cluster import lifecycle
from dev.cluster.layout import Mode, layout
from dev.console import DevError, run
from dev.images.push import build_and_push, build_and_push_to
from dev.paths import STATE


@dataclass(frozen=True, slots=True)
class Target:
    """How to reach a cluster.

    Attributes:
        kubectl: Command prefix.
        helm: Command prefix.
        kubeconfig: None for the current context.
        images: References by short name.
    """

    kubectl: tuple[str, ...]
    helm: tuple[str, ...]
    kubeconfig: str | None
    images: Mapping[str, str]

    def apply(self, *documents: Mapping[str, object]) -> None:
        """`kubectl apply`."""
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
        run([*self.kubectl, "apply", "-f", "-"], stdin=manifest)


def local_cluster() -> Target:
    """Brings the local cluster up, builds the images and pushes them to it."""
    lifecycle.up(layout(Mode.FULL, STATE))
    facts = json.loads((STATE / "cluster.json").read_text())
    kubeconfig = f"--kubeconfig={facts['kubeconfig']}"
    return Target((facts["kubectl"], kubeconfig), (facts["helm"], kubeconfig), facts["kubeconfig"], build_and_push())


def current_context() -> Target:
    """The cluster of the current kubectl context; it pulls from IMAGE_REGISTRY.

    Raises:
        DevError: kubectl, helm or IMAGE_REGISTRY is missing.
    """
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None:
            raise DevError(f"missing: {program}, for CLUSTER=current. Put it on PATH")
    return Target(("kubectl",), ("helm",), None, build_and_push_to(os.environ.get("IMAGE_REGISTRY", "")))
