"""Kubernetes objects into values: what the kubelet, the scheduler and the controllers say about a service.

Pure: it reads the JSON of the API and nothing else. Failed and finished pods are not pods of the service any
more.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sluice_operator import environment
from sluice_operator.pod_template import (
    CONTAINER,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    MODEL_DECLARATION,
    SERVICE_LABEL,
    TEMPLATE_HASH,
)
from sluice_operator.reasons import Reason
from sluice_operator.values import DELETION_COST, GATE, Child, Pod, Rollout, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]

_WAITING = {
    **dict.fromkeys(
        (
            "ErrImagePull",
            "ImagePullBackOff",
            "InvalidImageName",
            "ErrImageNeverPull",
            "ImageInspectError",
            "RegistryUnavailable",
        ),
        Reason.IMAGE_PULL_FAILED,
    ),
    **dict.fromkeys(
        ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
        Reason.CONTAINER_CONFIG_ERROR,
    ),
    "CrashLoopBackOff": Reason.CRASH_LOOPING,
}
"""The kubelet's reasons for a waiting container that do not go away by waiting alone."""


def pods(bodies: Iterable[Json]) -> tuple[Pod, ...]:
    """The service's pods, by name; those that have ended are left out."""
    running = (b for b in bodies if b.get("status", {}).get("phase") not in {"Failed", "Succeeded"})
    return tuple(sorted((pod(body) for body in running), key=lambda p: p.name))


def pod(body: Json) -> Pod:
    """One pod as its API object tells it; what the pod itself says comes later."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status", {})
    annotations = metadata.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    is_ready = conditions.get("Ready", {}).get("status") == "True"
    gate = conditions.get(GATE)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        ip=status.get("podIP"),
        http_port=_http_port(spec),
        is_running=status.get("phase") == "Running",
        is_being_deleted="deletionTimestamp" in metadata,
        is_ready=is_ready,
        containers_ready=conditions.get("ContainersReady", {}).get("status") == "True",
        template_hash=annotations.get(TEMPLATE_HASH),
        has_gate=any(g["conditionType"] == GATE for g in spec.get("readinessGates", [])),
        gate_is_open=None if gate is None else gate["status"] == "True",
        gate_since=_instant((gate or {}).get("lastTransitionTime")),
        gate_reason=(gate or {}).get("reason"),
        trouble=None if is_ready else _unscheduled(conditions) or _container_trouble(status),
        model_declaration=annotations.get(MODEL_DECLARATION),
        unscheduled_since=_unscheduled_since(conditions),
        requests=_requests(spec),
        deletion_cost=_deletion_cost(annotations),
    )


def rollout(body: Json) -> Rollout:
    """What the Deployment controller says."""
    status, template = body.get("status", {}), body["spec"]["template"]
    return Rollout(
        is_current=status.get("observedGeneration", 0) >= body["metadata"].get("generation", 0),
        template_hash=(template["metadata"].get("annotations") or {}).get(TEMPLATE_HASH),
        requested_replicas=body["spec"].get("replicas", 1),
        replicas=status.get("replicas", 0),
        updated_replicas=status.get("updatedReplicas", 0),
        ready_replicas=status.get("readyReplicas", 0),
        trouble=_rollout_trouble({c["type"]: c for c in status.get("conditions", [])}),
    )


def child(body: Json, service_name: str, service_uid: str) -> Child:
    """A live object where a child of the service should be, and whether it is the service's to change.

    An object without a controlling owner that carries the service's own labels was orphaned on purpose and is
    adopted. Anything else belongs to someone else.
    """
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    owner = next((o for o in metadata.get("ownerReferences", []) if o.get("controller")), None)
    if owner is not None:
        is_ours = owner["uid"] == service_uid
        whose = f"{owner['kind']} {owner['name']}"
        if owner["kind"] == "EmbeddingService" and not is_ours:
            whose += " of an earlier time, which is being deleted"
    else:
        is_ours = labels.get(MANAGED_BY_LABEL) == MANAGED_BY and labels.get(SERVICE_LABEL) == service_name
        whose = "someone else"
    return Child(kind=body["kind"], name=metadata["name"], is_ours=is_ours, owner=whose, body=body)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _http_port(spec: Json) -> int:
    ports = (p for c in spec["containers"] if c["name"] == CONTAINER for p in c.get("ports", []))
    return next((int(p["containerPort"]) for p in ports if p.get("name") == "http"), environment.HTTP_PORT)


def _requests(spec: Json) -> tuple[tuple[str, str], ...]:
    asked: Json = next(
        (c.get("resources", {}).get("requests", {}) for c in spec["containers"] if c["name"] == CONTAINER), {}
    )
    return tuple(sorted((name, str(quantity)) for name, quantity in asked.items()))


def _deletion_cost(annotations: Json) -> int | None:
    """What ReplicaSets make of the annotation: anything but a number counts as none."""
    try:
        return int(annotations[DELETION_COST])
    except (KeyError, ValueError):
        return None


def _unscheduled_since(conditions: Json) -> datetime | None:
    scheduled = conditions.get("PodScheduled", {})
    return _instant(scheduled.get("lastTransitionTime")) if _is_unschedulable(scheduled) else None


def _is_unschedulable(scheduled: Json) -> bool:
    return scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"


def _unscheduled(conditions: Json) -> Trouble | None:
    scheduled = conditions.get("PodScheduled", {})
    if not _is_unschedulable(scheduled):
        return None
    message = scheduled.get("message", "no node takes the pod")
    about_the_claim = "persistentvolumeclaim" in message.lower()
    return Trouble(Reason.MODEL_VOLUME_MISSING if about_the_claim else Reason.UNSCHEDULABLE, message)


def _container_trouble(status: Json) -> Trouble | None:
    container = next((c for c in status.get("containerStatuses", []) if c["name"] == CONTAINER), None)
    if container is None:
        return None
    waiting = container.get("state", {}).get("waiting", {})
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    reason = _WAITING.get(waiting.get("reason", ""))
    if reason is not None and reason is not Reason.CRASH_LOOPING:
        return Trouble(reason, waiting.get("message") or waiting["reason"])
    if ended is None or (reason is None and ended.get("exitCode") == 0):
        return None
    restarts = container.get("restartCount", 0)
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            Reason.OUT_OF_MEMORY,
            f"the server was killed for using more memory than its limit, {restarts} restarts; "
            "raise resources.limits.memory",
        )
    said = (ended.get("message") or ended.get("reason") or "it said nothing").strip()
    return Trouble(
        Reason.CRASH_LOOPING,
        f"the server ended with exit code {ended.get('exitCode')}, {restarts} restarts: {said}",
    )


def _rollout_trouble(conditions: Json) -> Trouble | None:
    failure = conditions.get("ReplicaFailure", {})
    if failure.get("status") == "True":
        return Trouble(Reason.PODS_NOT_CREATED, failure.get("message", "the API server refuses the pods"))
    progressing = conditions.get("Progressing", {})
    if progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded":
        return Trouble(Reason.PROGRESS_DEADLINE_EXCEEDED, progressing.get("message", "the rollout takes too long"))
    return None
