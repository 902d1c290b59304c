"""Kubernetes objects into values."""

from typing import Any

import pytest
from sluice_operator import observe
from sluice_operator.reasons import Reason

from tests.operator.builders import WALL_TIME


def pod_body(**status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": "p", "uid": "u", "annotations": {"sluice.dev/template-hash": "h"}},
        "spec": {
            "containers": [{"name": "server", "ports": [{"name": "http", "containerPort": 9001}]}],
            "readinessGates": [{"conditionType": "sluice.dev/accepting"}],
        },
        "status": status,
    }


def container(**status: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "server", "restartCount": 0, "state": {}, **status}]}


def test_a_running_pod() -> None:
    seen = observe.pod(
        pod_body(
            phase="Running",
            podIP="10.0.0.7",
            conditions=[
                {"type": "Ready", "status": "True"},
                {"type": "sluice.dev/accepting", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"},
            ],
        )
    )
    assert (seen.ip, seen.http_port, seen.is_running, seen.is_ready) == ("10.0.0.7", 9001, True, True)
    assert (seen.has_gate, seen.gate_is_open, seen.template_hash, seen.trouble) == (True, True, "h", None)
    assert seen.gate_since == WALL_TIME


def test_a_pod_that_was_just_made_is_unknown_in_most_ways() -> None:
    seen = observe.pod(pod_body())
    assert (seen.ip, seen.is_running, seen.is_ready, seen.trouble) == (None, False, False, None)
    assert (seen.gate_is_open, seen.gate_since) == (None, None)


def test_pods_that_have_ended_are_no_pods_of_the_service() -> None:
    assert [p.name for p in observe.pods([pod_body(phase="Failed"), pod_body(phase="Succeeded"), pod_body(phase="Pending")])] == ["p"]  # fmt: skip


TERMINATED = {"exitCode": 1, "reason": "Error", "message": "boom\n"}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (container(state={"waiting": {"reason": "ErrImagePull", "message": "not found"}}), Reason.IMAGE_PULL_FAILED, "not found"),
        (container(state={"waiting": {"reason": "InvalidImageName"}}), Reason.IMAGE_PULL_FAILED, "InvalidImageName"),
        (container(state={"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}), Reason.CONTAINER_CONFIG_ERROR, "no secret"),
        (container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": TERMINATED}, restartCount=4), Reason.CRASH_LOOPING, "exit code 1, 4 restarts: boom"),
        (container(state={"running": {}}, lastState={"terminated": TERMINATED}, restartCount=1), Reason.CRASH_LOOPING, "boom"),
        (container(state={"running": {}}, lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), Reason.OUT_OF_MEMORY, "limits.memory"),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}, Reason.UNSCHEDULABLE, "0/3 nodes"),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": 'persistentvolumeclaim "x" not found'}]}, Reason.MODEL_VOLUME_MISSING, '"x"'),
    ],
)  # fmt: skip
def test_why_a_pod_does_not_serve(status: dict[str, Any], reason: Reason, words: str) -> None:
    trouble = observe.pod(pod_body(**status)).trouble
    assert trouble is not None
    assert trouble.reason is reason
    assert words in trouble.message


@pytest.mark.parametrize(
    "status",
    [
        container(state={"waiting": {"reason": "ContainerCreating"}}),
        container(state={"waiting": {"reason": "PodInitializing"}}),
        container(state={"running": {}}),
        container(state={"running": {}}, lastState={"terminated": {"exitCode": 0}}),
        {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
        {**container(lastState={"terminated": TERMINATED}), "conditions": [{"type": "Ready", "status": "True"}]},
    ],
)
def test_what_passes_by_waiting_is_no_trouble(status: dict[str, Any]) -> None:
    assert observe.pod(pod_body(**status)).trouble is None


def deployment(generation: int = 1, observed: int = 1, conditions: Any = ()) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation},
        "spec": {"replicas": 3, "template": {"metadata": {"annotations": {"sluice.dev/template-hash": "h"}}}},
        "status": {"observedGeneration": observed, "replicas": 2, "updatedReplicas": 1, "conditions": list(conditions)},
    }


def test_a_deployment_that_its_controller_has_not_seen() -> None:
    seen = observe.rollout(deployment(generation=2, observed=1))
    assert (seen.is_current, seen.requested_replicas, seen.replicas, seen.updated_replicas) == (False, 3, 2, 1)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"type": "ReplicaFailure", "status": "True", "message": "quota"}, Reason.PODS_NOT_CREATED),
        ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}, Reason.PROGRESS_DEADLINE_EXCEEDED),
        ({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}, None),
    ],
)  # fmt: skip
def test_what_keeps_a_deployment(condition: dict[str, Any], reason: Reason | None) -> None:
    trouble = observe.rollout(deployment(conditions=[condition])).trouble
    assert (trouble.reason if trouble else None) is reason


@pytest.mark.parametrize(
    ("owners", "labels", "is_ours"),
    [
        ([{"controller": True, "uid": "mine", "kind": "EmbeddingService", "name": "m"}], {}, True),
        ([{"controller": True, "uid": "old", "kind": "EmbeddingService", "name": "m"}], {}, False),
        ([], {"app.kubernetes.io/managed-by": "sluice-operator", "sluice.dev/embeddingservice": "m"}, True),
        ([], {"app.kubernetes.io/managed-by": "sluice-operator", "sluice.dev/embeddingservice": "n"}, False),
        ([], {}, False),
    ],
    ids=["owned", "of-an-earlier-one", "orphaned", "of-another-service", "foreign"],
)
def test_whose_an_object_is(owners: list[Any], labels: dict[str, str], is_ours: bool) -> None:
    body = {"kind": "Service", "metadata": {"name": "m", "ownerReferences": owners, "labels": labels}}
    assert observe.child(body, "m", "mine").is_ours is is_ours


def test_what_a_pod_runs_asks_for_and_costs() -> None:
    body = pod_body()
    body["metadata"]["annotations"] |= {
        "sluice.dev/model-declaration": "d", "controller.kubernetes.io/pod-deletion-cost": "-100",
    }  # fmt: skip
    body["spec"]["containers"][0]["resources"] = {"requests": {"memory": "1Gi", "cpu": 2}}
    seen = observe.pod(body)
    assert (seen.model_declaration, seen.deletion_cost) == ("d", -100)
    assert seen.requests == (("cpu", "2"), ("memory", "1Gi"))
    body["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] = "cheap"
    assert observe.pod(body).deletion_cost is None


def test_since_when_a_pod_finds_no_node() -> None:
    said = {"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-03-01T12:00:00Z"}
    waits = observe.pod(pod_body(conditions=[{**said, "reason": "Unschedulable", "message": "1 Insufficient cpu."}]))
    assert waits.unscheduled_since == WALL_TIME
    gated = observe.pod(pod_body(conditions=[{**said, "reason": "SchedulingGated"}]))
    assert gated.unscheduled_since is None


def test_a_pod_without_annotations_is_read_too() -> None:
    body = pod_body()
    body["metadata"]["annotations"] = None
    assert (observe.pod(body).template_hash, observe.pod(body).deletion_cost) == (None, None)
