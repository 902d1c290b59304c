"""The objects that an EmbeddingService is made of, as they should be. Pure.

Deployment `<name>`, Service `<name>` with a cluster address, headless Service `<name>-headless` for clients
that balance themselves; PodDisruptionBudget, NetworkPolicy and ServiceMonitor `<name>` where they are asked for.
Each is owned by the EmbeddingService, so that Kubernetes itself collects them, whether the operator runs or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice_operator import environment, rollout_strategy
from sluice_operator.network_policy import network_policy
from sluice_operator.ownership import metadata
from sluice_operator.pod_template import STARTUP_SECONDS, identity, pod_template
from sluice_operator.service_monitor import KIND as SERVICE_MONITOR
from sluice_operator.service_monitor import SCRAPE_LABEL, service_monitor

if TYPE_CHECKING:
    from sluice_operator.rollout_strategy import Strategy
    from sluice_operator.spec import EmbeddingService, ServiceSpec

UNWATCHED = frozenset({SERVICE_MONITOR})
"""Kinds that a cluster may not have: they are asked for now and then, and not watched."""

Json = dict[str, Any]


def children(
    service: EmbeddingService, *, image: str, replicas: int, strategy: Strategy | None = None, gated: int = 0
) -> list[Json]:
    """All objects of a service. Services come first, so that an address exists before the first pod.

    Args:
        service: whose.
        image: of the server.
        replicas: pods that should exist.
        strategy: of a rollout; new pods first, where none is given.
        gated: pods that only a closed gate keeps out of traffic.
    """
    wanted = [
        cluster_service(service),
        headless_service(service),
        deployment(service, image, replicas, strategy),
    ]
    if has_budget(service.spec):
        wanted.append(disruption_budget(service, replicas, gated))
    if service.spec.network_policy.enabled:
        wanted.append(network_policy(service))
    if service.spec.monitoring.service_monitor.enabled:
        wanted.append(service_monitor(service))
    return wanted


def child_names(service_name: str) -> list[tuple[str, str]]:
    """Kind and name of every object that a service may ever own."""
    return [
        ("Service", service_name),
        ("Service", f"{service_name}-headless"),
        ("Deployment", service_name),
        ("PodDisruptionBudget", service_name),
        ("NetworkPolicy", service_name),
        (SERVICE_MONITOR, service_name),
    ]


def wanted_names(service: EmbeddingService) -> set[tuple[str, str]]:
    """Kind and name of the objects that this very spec asks for."""
    spec = service.spec
    names = {("Service", service.name), ("Service", f"{service.name}-headless"), ("Deployment", service.name)}
    asked = {
        "PodDisruptionBudget": has_budget(spec),
        "NetworkPolicy": spec.network_policy.enabled,
        SERVICE_MONITOR: spec.monitoring.service_monitor.enabled,
    }
    return names | {(kind, service.name) for kind, is_asked in asked.items() if is_asked}


def optional_kinds(spec: ServiceSpec) -> set[str]:
    """Kinds that the spec asks for and a cluster may not have."""
    return {SERVICE_MONITOR} if spec.monitoring.service_monitor.enabled else set()


def has_budget(spec: ServiceSpec) -> bool:
    """Whether there is a PodDisruptionBudget: it protects nothing where there is one pod at most."""
    return spec.disruption_budget.mode == "Auto" and spec.most_replicas > 1


def endpoint(service: EmbeddingService) -> str:
    """The address for gRPC clients inside the cluster."""
    return f"{service.name}.{service.namespace}.svc:{environment.GRPC_PORT}"


def selector(service_name: str) -> str:
    """The label selector of a service's pods, in the form of the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(identity(service_name).items()))


def deployment(service: EmbeddingService, image: str, replicas: int, strategy: Strategy | None = None) -> Json:
    """The Deployment that runs the pods; new pods come first in a rollout, where no strategy is given."""
    rolling = strategy or rollout_strategy.surge(replicas)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(service, service.name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": identity(service.name)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": rolling.max_surge, "maxUnavailable": rolling.max_unavailable},
            },
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
    headless = _service(service, f"{service.name}-headless", {"type": "ClusterIP", "clusterIP": "None"})
    headless["metadata"]["labels"][SCRAPE_LABEL] = "true"
    return headless


def disruption_budget(service: EmbeddingService, replicas: int, gated: int) -> Json:
    """Lets drains of nodes take some pods at a time, whether gates are closed or not.

    A gated pod is unready and would use the budget up: then no open pod could be evicted, and drains of nodes
    would wait for the load to end. So the budget grows by the gated pods, and never to all pods but for a single
    one: the last open pod stays. Gated pods themselves may be evicted while the rest is healthy.
    """
    most = service.spec.disruption_budget.max_unavailable + gated
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(service, service.name),
        "spec": {
            "maxUnavailable": max(1, min(most, replicas - 1)),
            "selector": {"matchLabels": identity(service.name)},
            "unhealthyPodEvictionPolicy": "IfHealthyBudget",
        },
    }


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
        "metadata": metadata(service, name),
        "spec": {**addresses, "selector": identity(service.name), "ports": ports},
    }
