"""What every child carries: its name, the service's labels, and the service as its owner. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice_operator.pod_template import labels

if TYPE_CHECKING:
    from sluice_operator.spec import EmbeddingService

API_VERSION = "sluice.dev/v1alpha1"
KIND = "EmbeddingService"

Json = dict[str, Any]


def metadata(service: EmbeddingService, name: str) -> Json:
    """Metadata of a child; Kubernetes itself deletes it with its owner, whether the operator runs or not."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": service.name,
        "uid": service.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "name": name,
        "namespace": service.namespace,
        "labels": labels(service.name),
        "ownerReferences": [owner],
    }
