"""Who may connect to the pods of a service, as a NetworkPolicy. Pure.

The kubelet's probes come from the node and need no rule. The operator does: without /health it would know
nothing. It is found by its label in any namespace, because a pod does not know where its operator runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice_operator.ownership import metadata
from sluice_operator.pod_template import NAME_LABEL, identity

if TYPE_CHECKING:
    from sluice_operator.spec import EmbeddingService

OPERATOR_NAME = "sluice-operator"
"""The label app.kubernetes.io/name of the operator's own pods."""

Json = dict[str, Any]


def network_policy(service: EmbeddingService) -> Json:
    """Closes the pods to everyone who is not named; what they connect to stays open."""
    spec = service.spec.network_policy
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": {NAME_LABEL: OPERATOR_NAME}}}
    clients = list(spec.allowed) or [{"podSelector": {}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(service, service.name),
        "spec": {
            "podSelector": {"matchLabels": identity(service.name)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": clients, "ports": [_port("grpc"), _port("http")]},
                {"from": [operator, *spec.monitoring_from], "ports": [_port("http")]},
            ],
        },
    }


def _port(name: str) -> Json:
    return {"port": name, "protocol": "TCP"}
