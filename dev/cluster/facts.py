"""cluster.json: what other tools need to know of a cluster."""

import json
from collections.abc import Mapping
from pathlib import Path

from dev.cluster import containers
from dev.cluster.files import write
from dev.cluster.layout import IMAGE_PREFIX, NETWORK_NAMESPACE, NODE_IP, Layout, Mode
from dev.cluster.processes import Processes


def publish(layout: Layout, binaries: Mapping[str, Path]) -> None:
    """Writes the file in one move; it is the last step of `up`."""
    full = layout.mode is Mode.FULL
    content = {
        "mode": layout.mode,
        "state_dir": str(layout.state),
        "kubeconfig": str(layout.kubeconfig),
        "kubectl": str(binaries["kubectl"]),
        "helm": str(binaries["helm"]) if full else None,
        "api_url": layout.api_url,
        "node_ip": NODE_IP if full else None,
        "network_namespace": NETWORK_NAMESPACE if full else None,
        "registry": containers.registry_address() if full else None,
        "image_prefix": IMAGE_PREFIX if full else None,
        "daemons": Processes(layout.state).names(),
    }
    write(layout.facts, json.dumps(content, indent=1))


def read(layout: Layout) -> Mapping[str, object] | None:
    """What was published, or None while `up` has not been done."""
    return json.loads(layout.facts.read_text()) if layout.facts.exists() else None
