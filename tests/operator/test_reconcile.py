"""The operator against a real API server, scheduler and controllers; only the kubelet is played."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.kubectl import Kubectl, condition
from tests.operator.builders import health_document
from tests.operator.conftest import Deployed, OperatorProcess

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployed]
GATE = "sluice.dev/accepting"


def is_ready(resource: dict[str, Any]) -> bool:
    return condition(resource, "Ready")["status"] == "True"


def gate_of(pod: dict[str, Any]) -> str | None:
    return next((c["status"] for c in pod["status"]["conditions"] if c["type"] == GATE), None)


def versions(service: Deployed) -> dict[str, str]:
    """The version of everything that belongs to a service, and of the service itself."""
    selector = f"sluice.dev/embeddingservice={service.name}"
    owned = service.kubectl.get("pods,deployments,services,poddisruptionbudgets", "-l", selector)["items"]
    return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in [*owned, service.get()]}


def test_an_applied_service_becomes_ready_and_says_so(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=2)
    ready = service.until(is_ready)
    status = ready["status"]
    assert status["observedGeneration"] == ready["metadata"]["generation"]
    assert (status["replicas"], status["readyReplicas"], status["desiredReplicas"]) == (2, 2, 2)
    assert status["endpoint"] == f"minilm.{service.kubectl.namespace}.svc:50051"
    assert status["gates"] == {"open": 2, "closed": 0}
    declared = service.pods()[0]["metadata"]["annotations"]["sluice.dev/model-declaration"]
    assert status["model"] == {"dimension": 384, "revision": "abc", "fingerprint": "f1", "declaration": declared}
    assert status["load"]["serviceRate"] == 24_000
    reasons = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    assert reasons == {
        "Ready": ("True", "Serving"), "Available": ("True", "Serving"), "Progressing": ("True", "RolledOut"),
        "ModelLoaded": ("True", "Loaded"), "ScalingActive": ("False", "Fixed"), "Saturated": ("False", "KeepingUp"),
    }  # fmt: skip
    assert [e["reason"] for e in service.events()] == ["Ready"]
    assert service.child("service")["spec"]["clusterIP"] != "None"
    assert service.child("service", "minilm-headless")["spec"]["clusterIP"] == "None"
    assert service.child("pdb")["spec"]["maxUnavailable"] == 1


def test_a_namespace_may_enforce_the_restricted_standard(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl
) -> None:
    kubectl.run("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/enforce=restricted")
    deploy(replicas=1).until(is_ready)


def test_the_table_of_kubectl_get(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=1)
    service.until(is_ready)
    header, row = service.kubectl.run("get", "emb", "minilm", "-o", "wide").splitlines()
    columns = ["NAME", "READY", "REPLICAS", "DESIRED", "DRAIN(MS)", "SATURATED", "REASON", "AGE", "MODEL", "GATED"]
    assert header.split()[: len(columns)] == columns
    assert row.split()[:7] == ["minilm", "True", "1", "1", "0", "False", "Serving"]
    assert "hf://org/model" in row


def test_the_gate_opens_only_once_the_pod_serves_and_stays_open(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Any
) -> None:
    script = kubelet.scripts[kubectl.namespace]
    script.health = health_document("warming", step=3, steps=24)
    service = deploy(replicas=1)
    warming = service.until_condition("ModelLoaded", "False", "Warming")
    assert "step 3 of 24" in warming["message"]
    assert [gate_of(p) for p in service.pods()] == [None]
    script.health = health_document("serving")
    service.until(is_ready)
    assert [gate_of(p) for p in service.pods()] == ["True"]
    before = service.pods()[0]["metadata"]["resourceVersion"]
    script.health = health_document("serving", accepting_requests=False, status="overloaded")
    operator.wait_rounds(4)
    assert service.pods()[0]["metadata"]["resourceVersion"] == before


def test_nothing_is_written_while_nothing_changes(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    operator.until_quiet()
    writes, before = operator.writes(), versions(service)
    operator.wait_rounds(12)
    assert operator.writes() == writes
    assert versions(service) == before


def test_a_restarted_operator_changes_nothing(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    operator.until_quiet()
    before = versions(service)
    operator.stop()
    operator.start()
    operator.wait_rounds(6)
    assert versions(service) == before


@pytest.mark.parametrize(
    ("kind", "name", "patch", "look"),
    [
        ("deployment", "minilm", {"spec": {"replicas": 5}}, lambda o: o["spec"]["replicas"] == 2),
        ("service", "minilm", {"spec": {"selector": {"app": "x"}}}, lambda o: o["spec"]["selector"]["sluice.dev/embeddingservice"] == "minilm"),
        ("pdb", "minilm", {"spec": {"maxUnavailable": 9}}, lambda o: o["spec"]["maxUnavailable"] == 1),
        ("deployment", "minilm", {"metadata": {"labels": {"sluice.dev/embeddingservice": "other"}}}, lambda o: o["metadata"]["labels"]["sluice.dev/embeddingservice"] == "minilm"),
    ],
    ids=["replicas", "selector", "budget", "label"],
)  # fmt: skip
def test_drift_is_put_right(
    operator: OperatorProcess, deploy: Deploy, kind: str, name: str, patch: dict[str, Any], look: Callable[[Any], bool]
) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    operator.until_quiet()
    service.kubectl.run("patch", kind, name, "--type=merge", "-p", json.dumps(patch))
    service.kubectl.eventually(lambda: service.child(kind, name), look, within_seconds=15, what=f"{kind} {name}")


def test_a_deleted_child_comes_back_and_the_events_say_so(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=1)
    service.until(is_ready)
    service.kubectl.run("delete", "service", "minilm-headless")
    service.kubectl.eventually(
        lambda: service.child("service", "minilm-headless"), bool, within_seconds=15, what="service"
    )
    service.kubectl.eventually(
        lambda: [e["reason"] for e in service.events()],
        lambda reasons: "DriftCorrected" in reasons, within_seconds=10, what="events",
    )  # fmt: skip


def test_a_label_that_someone_adds_is_left_alone(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=1)
    service.until(is_ready)
    service.kubectl.run("label", "deployment", "minilm", "team=search")
    operator.wait_rounds(4)
    operator.until_quiet()
    assert service.child("deployment")["metadata"]["labels"]["team"] == "search"


def test_a_model_that_cannot_be_loaded_is_told_in_the_servers_own_words(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Any
) -> None:
    reason = "/models/none does not exist: give model.uri the path of a model folder"
    kubelet.scripts[kubectl.namespace].health = health_document("failed", reason=reason)
    service = deploy(replicas=1)
    assert reason in service.until_condition("ModelLoaded", "False", "ModelLoadFailed")["message"]
    seen = service.get()
    for kind in ("Ready", "Available", "Progressing"):
        assert condition(seen, kind)["reason"] == "ModelLoadFailed"
    told = service.events()
    assert [(e["reason"], e["type"]) for e in told] == [("Problem", "Warning")]
    assert reason in told[0]["message"]


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        (
            {"ready": False, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x:y"}}},
            "ImagePullFailed", "Back-off pulling image x:y",
        ),
        (
            {"ready": False, "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hf" not found'}}},
            "ContainerConfigError", 'secret "hf" not found',
        ),
        (
            {"ready": False, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": "DTYPE='x' is not allowed"}}},
            "CrashLooping", "exit code 2, 3 restarts: DTYPE='x' is not allowed",
        ),
        (
            {"ready": False, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
            "OutOfMemory", "raise resources.limits.memory",
        ),
    ],
    ids=["image", "secret", "crash", "memory"],
)  # fmt: skip
def test_what_the_kubelet_says_comes_through(
    operator: OperatorProcess,
    deploy: Deploy,
    kubectl: Kubectl,
    kubelet: Any,
    container: dict[str, Any],
    reason: str,
    words: str,
) -> None:
    kubelet.scripts[kubectl.namespace].container_state = container
    service = deploy(replicas=1)
    assert words in service.until_condition("Ready", "False", reason)["message"]
    assert condition(service.get(), "ModelLoaded")["reason"] == reason


def test_a_missing_claim_is_named(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=1, model={"uri": "pvc://no-such-claim/minilm"})
    missing = service.until_condition("ModelLoaded", "False", "ModelVolumeMissing")
    assert 'persistentvolumeclaim "no-such-claim" not found' in missing["message"]


def test_a_pod_that_fits_nowhere_is_told_in_the_schedulers_words(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=1, nodeSelector={"gpu": "yes"})
    unschedulable = service.until_condition("Ready", "False", "Unschedulable")
    assert "node affinity/selector" in unschedulable["message"]


def test_pods_that_a_quota_forbids_are_told(operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl) -> None:
    kubectl.run("create", "quota", "none", "--hard=pods=0")
    service = deploy(replicas=1)
    assert "exceeded quota" in service.until_condition("Progressing", "False", "PodsNotCreated")["message"]


def test_what_the_api_server_refuses_is_told_and_mended_by_the_next_spec(
    operator: OperatorProcess, deploy: Deploy
) -> None:
    service = deploy(replicas=1, affinity={"nodeAffinity": {"nonsense": True}})
    refused = service.until_condition("Progressing", "False", "ApplyFailed")
    assert "Deployment minilm" in refused["message"]
    assert "nonsense" in refused["message"]
    before = operator.writes()
    operator.wait_rounds(5)
    assert operator.writes() - before <= 1, "a refused object is not sent again at every poll"
    service.patch(affinity=None)
    service.until(is_ready)


def test_an_object_of_someone_else_is_left_alone_and_named(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl
) -> None:
    kubectl.run("create", "service", "clusterip", "minilm", "--tcp=80:80")
    service = deploy(replicas=1)
    conflict = service.until_condition("Progressing", "False", "NameConflict")
    assert "Service minilm belongs to someone else" in conflict["message"]
    assert service.child("service")["spec"]["ports"][0]["port"] == 80


def test_children_orphaned_on_purpose_are_adopted(operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl) -> None:
    service = deploy(replicas=1)
    service.until(is_ready)
    pod = service.pods()[0]["metadata"]["uid"]
    kubectl.run("delete", "emb", "minilm", "--cascade=orphan")
    again = deploy(replicas=1)
    again.until(is_ready)
    kubectl.eventually(
        lambda: service.child("deployment")["metadata"]["ownerReferences"][0]["uid"],
        lambda uid: uid == again.get()["metadata"]["uid"], within_seconds=10, what="owner",
    )  # fmt: skip
    assert [p["metadata"]["uid"] for p in again.pods()] == [pod]


def test_a_new_version_that_fails_leaves_the_old_one_serving(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Any
) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    script = kubelet.scripts[kubectl.namespace]
    script.by_pod = {p["metadata"]["name"]: health_document() for p in service.pods()}
    script.health = health_document("failed", reason="hf://org/other has no safetensors")
    service.patch(model={"uri": "hf://org/other"})
    assert "no safetensors" in service.until_condition("Progressing", "False", "ModelLoadFailed")["message"]
    seen = service.get()
    assert condition(seen, "Available")["status"] == "True"
    assert condition(seen, "ModelLoaded")["reason"] == "ModelLoadFailed"
    assert seen["status"]["readyReplicas"] == 2
    assert [e["reason"] for e in service.events()] == ["Ready", "RolloutStarted", "NotReady", "Problem"]
    service.patch(model={"uri": "hf://org/model"})
    service.until_condition("Progressing", "True", "RolledOut")


def test_a_deleted_pod_is_replaced_and_the_status_follows(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    names = [pod["metadata"]["name"] for pod in service.pods()]
    # The new pod takes until the test has seen that one is missing.
    service.script.by_pod.update(dict.fromkeys(names, service.script.health))
    service.script.health = health_document("warming", step=1, steps=9)
    service.kubectl.run("delete", "pod", names[0], "--wait=false")
    service.until(lambda s: s["status"]["readyReplicas"] == 1)
    service.script.health = health_document()
    service.until(lambda s: is_ready(s) and s["status"]["readyReplicas"] == 2)
    service.until(lambda _: names[0] not in {pod["metadata"]["name"] for pod in service.pods()})
    assert [gate_of(pod) for pod in service.pods()] == ["True", "True"]


@pytest.mark.parametrize("nonsense", [b"<html>", b'{"status": 1}', b"[" * 5000, b'{"queued_tokens": NaN}', None], ids=["html", "wrong", "deep", "nan", "hangs"])  # fmt: skip
def test_a_pod_that_speaks_nonsense_is_one_stale_pod(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Any, nonsense: bytes | None
) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    liar, honest = (p["metadata"]["name"] for p in service.pods())
    script = kubelet.scripts[kubectl.namespace]
    script.by_pod[honest] = health_document(queued_tokens=4200)
    script.by_pod[liar] = nonsense
    seen = service.until(
        lambda s: s["status"]["load"].get("queuedTokens") == 4200 and s["status"]["load"]["serviceRate"] == 12_000
    )
    assert condition(seen, "ModelLoaded")["status"] == "True"


def test_readiness_off_needs_no_operator(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=1, readiness={"mode": "Off"})
    service.until(is_ready)
    assert "readinessGates" not in service.pods()[0]["spec"]
    operator.stop()
    service.kubectl.run("delete", "pod", service.pods()[0]["metadata"]["name"], "--wait=false")
    service.kubectl.eventually(
        lambda: service.child("deployment")["status"].get("readyReplicas"),
        lambda ready: ready == 1, within_seconds=20, what="a new pod",
    )  # fmt: skip


def test_without_the_operator_pods_serve_and_deletion_leaves_nothing(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    operator.stop()
    assert "finalizers" not in service.get()["metadata"]
    assert all("finalizers" not in p["metadata"] for p in service.pods())
    assert all(
        "sluice" not in key and "kopf" not in key
        for p in service.pods()
        for key in p["metadata"].get("annotations", {})
        if key not in {"sluice.dev/template-hash", "sluice.dev/model-declaration"}
    )
    service.kubectl.run("delete", "emb", "minilm", "--timeout=20s")
    selector = "sluice.dev/embeddingservice=minilm"
    service.kubectl.eventually(
        lambda: service.kubectl.get("pods,deployments,services,pdb", "-l", selector)["items"],
        lambda items: not items, within_seconds=40, what="every child is gone",
    )  # fmt: skip


def test_a_service_deleted_and_made_again_starts_afresh(operator: OperatorProcess, deploy: Deploy) -> None:
    first = deploy(replicas=1)
    first.until(is_ready)
    first.kubectl.run("delete", "emb", "minilm", "--timeout=20s")
    second = deploy(replicas=1)
    ready = second.until(
        lambda s: (
            is_ready(s) and second.child("deployment")["metadata"]["ownerReferences"][0]["uid"] == s["metadata"]["uid"]
        )
    )
    assert ready["status"]["observedGeneration"] == 1


def test_replicas_follow_the_scale_subresource(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=1, scaling={"mode": "External"})
    service.until(is_ready)
    service.kubectl.run("scale", "emb", "minilm", "--replicas=3")
    seen = service.until(lambda s: s["status"].get("readyReplicas") == 3)
    assert condition(seen, "ScalingActive")["reason"] == "ExternalAutoscaler"
    scale = json.loads(
        service.kubectl.run(
            "get",
            "--raw",
            f"/apis/sluice.dev/v1alpha1/namespaces/{service.kubectl.namespace}/embeddingservices/minilm/scale",
        )
    )
    assert scale["status"]["replicas"] == 3
    assert scale["status"]["selector"] == "app.kubernetes.io/name=sluice-server,sluice.dev/embeddingservice=minilm"


def test_offered_load_adds_pods_and_the_events_say_why(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Any
) -> None:
    script = kubelet.scripts[kubectl.namespace]
    service = deploy(scaling={"mode": "Internal", "minReplicas": 1, "maxReplicas": 5})
    service.until(is_ready)
    started = time.monotonic()

    def busy() -> dict[str, Any]:
        offered = int((time.monotonic() - started) * 30_000)
        return health_document(
            offered_tokens_total=offered, busy_fraction=1.0, status="overloaded", accepting_requests=False
        )

    first = service.pods()[0]["metadata"]["name"]
    script.by_pod = _Live(first, busy)
    grown = service.until(lambda s: s["status"]["readyReplicas"] == 4)
    assert condition(grown, "ScalingActive") | {"lastTransitionTime": ""} == {
        "type": "ScalingActive", "status": "True", "reason": "Measured", "lastTransitionTime": "",
        "observedGeneration": 1, "message": condition(grown, "ScalingActive")["message"],
    }  # fmt: skip
    last = grown["status"]["scaling"]["last"]
    assert last["to"] == 4
    assert "tok/s per pod" in last["reason"]
    scaled = [e["message"] for e in service.events() if e["reason"] == "Scaled"]
    assert scaled[0].startswith("1 → ")
    assert "→ 4 pods" in scaled[-1]


def test_a_setting_out_of_range_is_named_and_stops_the_operator(operator: OperatorProcess) -> None:
    done = subprocess.run(
        operator.command,
        env=operator.environment | {"POLL_TIMEOUT_SECONDS": "-1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "POLL_TIMEOUT_SECONDS='-1'" in done.stderr
    assert "greater than 0" in done.stderr


class _Live(dict[str, Any]):
    """One pod whose document is made anew at each question."""

    def __init__(self, pod: str, document: Callable[[], dict[str, Any]]) -> None:
        self._pod, self._document = pod, document

    def get(self, pod: str, default: Any = None) -> Any:
        return self._document() if pod == self._pod else default
