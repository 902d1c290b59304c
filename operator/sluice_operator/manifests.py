"""The objects that an EmbeddingService is made of, as they should be. Pure.

Deployment `<name>`, Service `<name>` with a cluster address, headless Service `<name>-headless` for clients
that balance themselves, and a PodDisruptionBudget `<name>` where there can be more than one pod. Each is
owned by the EmbeddingService, so that Kubernetes itself collects them, whether the operator runs or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice_operator import environment
from sluice_operator.pod_template import STARTUP_SECONDS, identity, labels, pod_template

if TYPE_CHECKING:
    from sluice_operator.spec import EmbeddingService, ServiceSpec

API_VERSION = "sluice.dev/v1alpha1"
KIND = "EmbeddingService"

Json = dict[str, Any]


def children(service: EmbeddingService, *, image: str, replicas: int) -> list[Json]:
    """All objects of a service. Services come first, so that an address exists before the first pod."""
    wanted = [cluster_service(service), headless_service(service), deployment(service, image, replicas)]
    if service.spec.most_replicas > 1:
        wanted.append(disruption_budget(service))
    return wanted


def child_names(service_name: str) -> list[tuple[str, str]]:
    """Kind and name of every object that a service may ever own."""
    return [
        ("Service", service_name),
        ("Service", f"{service_name}-headless"),
        ("Deployment", service_name),
        ("PodDisruptionBudget", service_name),
    ]


def endpoint(service: EmbeddingService) -> str:
    """The address for gRPC clients inside the cluster."""
    return f"{service.name}.{service.namespace}.svc:{environment.GRPC_PORT}"


def selector(service_name: str) -> str:
    """The label selector of a service's pods, in the form of the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(identity(service_name).items()))


def deployment(service: EmbeddingService, image: str, replicas: int) -> Json:
    """The Deployment that runs the pods."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(service, service.name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": identity(service.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _rolling_update(service.spec)},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": STARTUP_SECONDS + 60,
            "template": pod_template(service, image),
        },
    }


def cluster_service(service: EmbeddingService) -> Json:
    """One address for all ready pods."""
    return _service(service, service.name, {"type": "ClusterIP"})


def headless_service(service: EmbeddingService) -> Json:
    """The addresses of all ready pods, for gRPC clients with round_robin."""
    return _service(service, f"{service.name}-headless", {"type": "ClusterIP", "clusterIP": "None"})


def disruption_budget(service: EmbeddingService) -> Json:
    """Lets drains of nodes take one pod at a time, and an unready one only where the others are healthy."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(service, service.name),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": identity(service.name)},
            "unhealthyPodEvictionPolicy": "IfHealthyBudget",
        },
    }


def _rolling_update(spec: ServiceSpec) -> dict[str, int]:
    """One more pod first where pods are cheap; one less first where each holds a device, perhaps the last."""
    resources = spec.resources or {}
    asked = {**resources.get("requests", {}), **resources.get("limits", {})}
    holds_a_device = any("/" in name for name in asked)
    return {"maxSurge": 0, "maxUnavailable": 1} if holds_a_device else {"maxSurge": 1, "maxUnavailable": 0}


def _service(service: EmbeddingService, name: str, addresses: Json) -> Json:
    ports = [
        {
            "name": "grpc",
            "port": environment.GRPC_PORT,
            "targetPort": "grpc",
            "protocol": "TCP",
            "appProtocol": "kubernetes.io/h2c",
        },
        {"name": "http", "port": environment.HTTP_PORT, "targetPort": "http", "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(service, name),
        "spec": {**addresses, "selector": identity(service.name), "ports": ports},
    }


def _metadata(service: EmbeddingService, name: str) -> Json:
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
