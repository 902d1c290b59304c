"""The pod of an EmbeddingService: container, probes, volumes, security. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from sluice_operator import environment
from sluice_operator.values import GATE

if TYPE_CHECKING:
    from sluice_operator.spec import EmbeddingService, ModelSpec, ServiceSpec

NAME_LABEL = "app.kubernetes.io/name"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
SERVICE_LABEL = "sluice.dev/embeddingservice"
TEMPLATE_HASH = "sluice.dev/template-hash"
"""Annotation of every pod: which version of the spec it runs."""
MODEL_DECLARATION = "sluice.dev/model-declaration"
"""Annotation of every pod: whose vectors spec.model said that they are."""
MANAGED_BY = "sluice-operator"
CONTAINER = "server"
USER_ID = 65532

STARTUP_SECONDS = 1800
"""How long downloading, loading and warming may take before the kubelet starts the container anew."""
_STARTUP_PERIOD_SECONDS = 2

Json = dict[str, Any]


def identity(service_name: str) -> dict[str, str]:
    """The labels by which pods are selected. A Deployment's selector is immutable, so these never change."""
    return {NAME_LABEL: "sluice-server", SERVICE_LABEL: service_name}


def labels(service_name: str) -> dict[str, str]:
    """The labels of everything that belongs to a service."""
    return {**identity(service_name), MANAGED_BY_LABEL: MANAGED_BY}


def pod_template(service: EmbeddingService, image: str) -> Json:
    """The Deployment's template; its annotation `TEMPLATE_HASH` tells versions of the spec apart."""
    spec = service.spec
    template: Json = {
        "metadata": {
            "labels": {**spec.pod_metadata.labels, **labels(service.name)},
            "annotations": {**spec.pod_metadata.annotations, MODEL_DECLARATION: declaration(spec.model)},
        },
        "spec": _pod_spec(service, image),
    }
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    template["metadata"]["annotations"][TEMPLATE_HASH] = digest[:12]
    return template


def declaration(model: ModelSpec) -> str:
    """A digest of what a spec says about whose vectors its pods compute; precision and layout are not part of it."""
    said = [model.uri, model.revision, model.pooling, sorted(model.exclude_tokens), model.fingerprint]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def template_hash(template: Json) -> str:
    """The version of the spec that a template or a pod belongs to."""
    return str(template["metadata"]["annotations"][TEMPLATE_HASH])


def grace_seconds(service: EmbeddingService) -> int:
    """From SIGTERM to SIGKILL: the server's own propagation delay and drain bound, and 10 s more."""
    return environment.PROPAGATION_SECONDS + environment.drain_seconds(service.spec.server) + 10


def _pod_spec(service: EmbeddingService, image: str) -> Json:
    spec = service.spec
    optional: Json = {
        "nodeSelector": spec.node_selector,
        "tolerations": list(spec.tolerations),
        "affinity": spec.affinity,
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.runtime_class_name,
        "serviceAccountName": spec.service_account_name,
        "imagePullSecrets": list(spec.image_pull_secrets),
        # A pod without the gate is ready as soon as its probe answers, also while the operator is away.
        "readinessGates": [] if spec.readiness.mode == "Off" else [{"conditionType": GATE}],
    }
    return {
        "containers": [_container(spec, image)],
        "volumes": _volumes(spec),
        "topologySpreadConstraints": _spread(service),
        "terminationGracePeriodSeconds": grace_seconds(service),
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{field: value for field, value in optional.items() if value},
    }


def _container(spec: ServiceSpec, image: str) -> Json:
    mounts: list[Json] = [
        {"name": "cache", "mountPath": environment.CACHE_PATH},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of this pod alone
    ]
    if environment.claim_of(spec.model.uri) is not None:
        mounts.append({"name": "models", "mountPath": environment.MODELS_PATH, "readOnly": True})
    if environment.cache_claim_of(spec.model) is not None:
        mounts.append({"name": "downloads", "mountPath": environment.SHARED_CACHE_PATH})
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": spec.server.image_pull_policy,
        "env": environment.server_environment(spec),
        "ports": [
            {"name": "grpc", "containerPort": environment.GRPC_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": environment.HTTP_PORT, "protocol": "TCP"},
        ],
        **({"resources": spec.resources} if spec.resources else {}),
        "startupProbe": _probe(
            "/startupz", _STARTUP_PERIOD_SECONDS, failures=STARTUP_SECONDS // _STARTUP_PERIOD_SECONDS
        ),
        "livenessProbe": _probe("/livez", 10, failures=6, timeout=5),
        "readinessProbe": _probe("/readyz", 2, failures=2),
        # The last lines of the log become the reason that the operator shows.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _probe(path: str, period_seconds: int, *, failures: int, timeout: int = 2) -> Json:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _volumes(spec: ServiceSpec) -> list[Json]:
    own = spec.model.cache.empty_dir
    limit = {} if own is None or own.size_limit is None else {"sizeLimit": str(own.size_limit)}
    volumes: list[Json] = [{"name": "cache", "emptyDir": limit}, {"name": "tmp", "emptyDir": {}}]
    shared = environment.cache_claim_of(spec.model)
    if shared is not None:
        volumes.append({"name": "downloads", "persistentVolumeClaim": {"claimName": shared}})
    claim = environment.claim_of(spec.model.uri)
    if claim is not None:
        volumes.append({"name": "models", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    return volumes


def _spread(service: EmbeddingService) -> list[Json]:
    """The user's constraints, each on this service's pods unless it says otherwise; else different nodes."""
    selector = {"matchLabels": identity(service.name)}
    wanted = service.spec.topology_spread_constraints
    if wanted:
        return [{"labelSelector": selector, **constraint} for constraint in wanted]
    hosts = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    return [{**hosts, "labelSelector": selector}]
