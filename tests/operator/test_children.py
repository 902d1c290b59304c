"""Children beside the pods, against a real API server: made, kept, followed, and deleted when switched off."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.kubectl import Kubectl, KubectlError, condition
from tests.operator.builders import health_document
from tests.operator.conftest import ControlPlane, Deployed, OperatorProcess
from tests.operator.kubelet import Kubelet
from tests.operator.test_reconcile import gate_of, is_ready

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployed]
MONITOR = {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}


def until_gone(service: Deployed, kind: str) -> None:
    def remains() -> bool:
        return bool(service.kubectl.run("get", kind, service.name, "--ignore-not-found", "-o", "name").strip())

    service.kubectl.eventually(remains, lambda remains: not remains, within_seconds=45, what=f"{kind} is deleted")


def evict(service: Deployed, pod: str) -> str:
    """Asks for an eviction as `kubectl drain` does; returns what the API server says."""
    path = f"/api/v1/namespaces/{service.kubectl.namespace}/pods/{pod}/eviction?dryRun=All"
    body = {
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": service.kubectl.namespace},
    }  # fmt: skip
    try:
        return service.kubectl.run("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
    except KubectlError as error:
        return str(error)


@pytest.fixture
def service_monitors(control_plane: ControlPlane) -> Iterator[None]:
    """The API of the Prometheus operator, as far as it matters here."""
    open_object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    kubectl = control_plane.kubectl("default")
    kubectl.apply({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": open_object},
            }}}],
        },
    })  # fmt: skip
    kubectl.eventually(
        lambda: kubectl.get("crd", "servicemonitors.monitoring.coreos.com"),
        lambda crd: condition(crd, "Established")["status"] == "True", within_seconds=30, what="the CRD",
    )  # fmt: skip
    yield
    kubectl.run("delete", "crd", "servicemonitors.monitoring.coreos.com", "--timeout=30s")


def test_a_network_policy_is_made_put_right_and_deleted(operator: OperatorProcess, deploy: Deploy) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
    service = deploy(replicas=1, networkPolicy={"enabled": True, "from": [peer]})
    service.until(is_ready)
    assert service.child("networkpolicy")["spec"]["ingress"][0]["from"] == [peer]
    operator.until_quiet()
    change = {"spec": {"ingress": [{}]}}
    service.kubectl.run("patch", "networkpolicy", "minilm", "--type=merge", "-p", json.dumps(change))
    service.kubectl.eventually(
        lambda: service.child("networkpolicy"),
        lambda p: len(p["spec"]["ingress"]) == 2,
        within_seconds=15,
        what="policy",
    )
    service.patch(networkPolicy={"enabled": False, "from": None})
    until_gone(service, "networkpolicy")
    operator.until_quiet()


def test_a_budget_that_is_switched_off_is_deleted(operator: OperatorProcess, deploy: Deploy) -> None:
    service = deploy(replicas=2)
    service.until(is_ready)
    assert service.child("pdb")["spec"]["maxUnavailable"] == 1
    service.patch(disruptionBudget={"mode": "Off"})
    until_gone(service, "pdb")
    operator.until_quiet()


def test_without_the_prometheus_operator_the_service_serves_and_says_what_is_missing(
    operator: OperatorProcess, deploy: Deploy
) -> None:
    service = deploy(replicas=1, monitoring=MONITOR)
    service.until(is_ready)
    missing = service.until_condition("Progressing", "False", "ServiceMonitorUnavailable")
    assert (
        "install the Prometheus operator, or set spec.monitoring.serviceMonitor.enabled to false" in missing["message"]
    )
    assert [e["reason"] for e in service.events()].count("Problem") == 1
    operator.until_quiet()
    service.patch(monitoring={"serviceMonitor": {"enabled": False}})
    service.until_condition("Progressing", "True", "RolledOut")


def test_a_service_monitor_is_made_and_deleted_also_after_a_restart(
    service_monitors: None, operator: OperatorProcess, deploy: Deploy
) -> None:
    service = deploy(replicas=1, monitoring=MONITOR)
    service.until(is_ready)
    made = service.kubectl.eventually(lambda: service.child("servicemonitor"), bool, within_seconds=15, what="monitor")
    assert made["metadata"]["labels"]["release"] == "prometheus"
    operator.until_quiet()
    operator.stop()
    service.patch(monitoring={"serviceMonitor": {"enabled": False}})
    operator.start()
    until_gone(service, "servicemonitor")
    operator.until_quiet()


def test_a_closed_gate_neither_blocks_a_drain_nor_gives_the_last_open_pod_up(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Kubelet
) -> None:
    script = kubelet.scripts[kubectl.namespace]
    service = deploy(replicas=3, readiness={"minHoldSeconds": 1, "maxClosedPercent": 70})
    service.until(lambda s: is_ready(s) and s["status"]["readyReplicas"] == 3)
    names = sorted(p["metadata"]["name"] for p in service.pods())
    time.sleep(1)  # Gates have a resolution of one second, and minHoldSeconds is the least there is.
    overloaded = health_document(
        accepting_requests=False, status="overloaded", queued_tokens=90_000, estimated_drain_time_ms=9000.0
    )

    def until_allowed(number: int, evictions: int) -> None:
        def holds(budget: dict[str, Any]) -> bool:
            said = budget["status"].get("disruptionsAllowed"), budget["status"].get("observedGeneration")
            return (budget["spec"]["maxUnavailable"], *said) == (number, evictions, budget["metadata"]["generation"])

        service.kubectl.eventually(lambda: service.child("pdb"), holds, within_seconds=20, what="the budget")

    script.by_pod = {names[0]: overloaded}
    service.until(lambda s: s["status"]["gates"]["closed"] == 1)
    until_allowed(2, 1)
    assert "Success" in evict(service, names[1]), "an open pod of two may go"
    assert "Success" in evict(service, names[0]), "the gated pod may go"
    script.by_pod = {names[0]: overloaded, names[1]: overloaded}
    service.until(lambda s: s["status"]["gates"]["closed"] == 2)
    until_allowed(2, 0)
    assert "disruption budget" in evict(service, names[2]), "the last open pod stays"
    assert "Success" in evict(service, names[0]), "a gated pod may go"
    script.by_pod = {}
    service.until(lambda s: s["status"]["gates"]["closed"] == 0)
    until_allowed(1, 1)


def test_a_full_node_is_rolled_over_pod_by_pod(operator: OperatorProcess, deploy: Deploy) -> None:
    half_a_node = {"requests": {"cpu": "25"}}
    service = deploy(replicas=2, resources=half_a_node)
    service.until(is_ready)
    assert service.child("deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    # New pods take until the test has seen that an old one went.
    service.script.by_pod.update({pod["metadata"]["name"]: service.script.health for pod in service.pods()})
    service.script.health = health_document("warming", step=1, steps=9)
    service.patch(model={"uri": "hf://org/model", "dtype": "float32"})
    waits = service.until_condition("Progressing", "False", "Unschedulable")
    assert "Insufficient cpu" in waits["message"]
    assert service.status()["readyReplicas"] == 2
    fewest = 2

    def has_fewer(resource: dict[str, Any]) -> bool:
        nonlocal fewest
        fewest = min(fewest, resource["status"]["readyReplicas"])
        return fewest < 2

    def is_over(resource: dict[str, Any]) -> bool:
        has_fewer(resource)
        return condition(resource, "Progressing")["reason"] == "RolledOut"

    service.until(has_fewer, within_seconds=75)
    operator.wait_rounds(3)
    assert service.status()["readyReplicas"] == 1, "the other one stays until the first is replaced"
    service.script.health = health_document()
    service.until(is_over, within_seconds=75)
    assert fewest == 1, "one pod goes at a time"
    assert "RolloutReplaces" in [e["reason"] for e in service.events()]
    service.kubectl.eventually(
        lambda: service.child("deployment")["spec"]["strategy"]["rollingUpdate"],
        lambda numbers: numbers == {"maxSurge": 1, "maxUnavailable": 0}, within_seconds=15, what="the strategy",
    )  # fmt: skip
    operator.until_quiet()


def test_the_pods_with_least_to_do_go_first(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Kubelet
) -> None:
    service = deploy(replicas=3, readiness={"mode": "Startup"})
    service.until(is_ready)
    names = sorted(p["metadata"]["name"] for p in service.pods())
    busy = health_document(queued_tokens=9000, estimated_drain_time_ms=800.0)
    kubelet.scripts[kubectl.namespace].by_pod = {names[0]: busy, names[2]: busy}
    service.until(lambda s: s["status"]["load"]["queuedTokens"] == 18_000)
    operator.until_quiet()
    assert all("pod-deletion-cost" not in str(p["metadata"].get("annotations")) for p in service.pods())
    service.patch(replicas=2)
    kubectl.eventually(
        lambda: sorted(p["metadata"]["name"] for p in service.pods()),
        lambda left: left == [names[0], names[2]], within_seconds=20, what="the idle pod is gone",
    )  # fmt: skip
    operator.until_quiet()


def test_pods_of_other_vectors_get_no_traffic_until_they_are_declared(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Kubelet
) -> None:
    ours, theirs = "00000000-00000001", "00000002-00000002"

    def computing(fingerprint: str) -> dict[str, Any]:
        model = {
            "uri": "hf://org/model",
            "revision": fingerprint[-1],
            "fingerprint": fingerprint,
            "max_input_tokens": 256,
        }
        return health_document(model=model)

    script = kubelet.scripts[kubectl.namespace]
    script.health = computing(ours)
    service = deploy(replicas=2)
    service.until(is_ready)
    old = {p["metadata"]["name"] for p in service.pods()}
    script.by_pod = {name: computing(ours) for name in old}
    script.health = computing(theirs)
    service.patch(server={"deadlineWaitMilliseconds": 20})
    blocked = service.until_condition("Progressing", "False", "FingerprintChanged")
    assert f"fingerprint {theirs} and not {ours}" in blocked["message"]
    seen = service.get()
    assert condition(seen, "Available")["status"] == "True"
    assert seen["status"]["model"]["fingerprint"] == ours
    operator.until_quiet()
    operator.stop()
    operator.start()
    operator.wait_rounds(5)
    assert {p["metadata"]["name"]: gate_of(p) for p in service.pods() if p["metadata"]["name"] in old} == dict.fromkeys(
        old, "True"
    )
    assert [gate_of(p) for p in service.pods() if p["metadata"]["name"] not in old] == [None]
    service.patch(model={"uri": "hf://org/model", "fingerprint": theirs})
    accepted = service.until_condition("Progressing", "True", "RolledOut")
    assert accepted
    assert service.status()["model"]["fingerprint"] == theirs
    told = [e["message"] for e in service.events() if e["reason"] == "ModelChanged"]
    assert [f"fingerprint {ours} → {theirs}" in message for message in told] == [True]


def test_what_was_measured_outlives_the_operator(
    operator: OperatorProcess, deploy: Deploy, kubectl: Kubectl, kubelet: Kubelet
) -> None:
    script = kubelet.scripts[kubectl.namespace]
    script.health = health_document(busy_fraction=0.9, service_rate_tokens_per_sec=7000.0)
    service = deploy(replicas=1, scaling={"mode": "Observe"})
    service.until(
        lambda s: s.get("status", {}).get("scaling", {}).get("tokensPerSecondPerPod") == 7000, within_seconds=40
    )
    script.health = health_document(busy_fraction=0.0, service_rate_tokens_per_sec=30_000.0)
    operator.until_quiet()
    operator.stop()
    operator.start()
    service.until(lambda s: "at 7000 tok/s per pod" in condition(s, "ScalingActive")["message"], within_seconds=40)
    known = service.status()["scaling"]
    assert (known["tokensPerSecondPerPod"], known["recommendedReplicas"]) == (7000, 1)
    assert operator.metric("sluice_recommended_replicas") == {
        f'{{namespace="{kubectl.namespace}",service="minilm"}}': 1.0
    }
    operator.until_quiet()
