"""The rights that the chart gives the operator, as the API server's own authorizer sees them: all it needs, no more."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.kubectl import Kubectl, condition
from tests.operator.builders import ROOT
from tests.operator.conftest import ControlPlane, Deployed, OperatorProcess

pytestmark = pytest.mark.cluster

Rights = set[tuple[str, str, str, str]]
"""Of API group, resource, name (empty for any) and verb."""
LEASE: Rights = {
    ("coordination.k8s.io", "leases", "", "create"),
    ("coordination.k8s.io", "leases", "sluice-operator", "get"),
    ("coordination.k8s.io", "leases", "sluice-operator", "update"),
}


def documents(helm: Path, namespace: str, *values: str) -> list[dict[str, Any]]:
    """All that the chart makes but the Deployment: nothing here runs in a pod."""
    command = [str(helm), "template", "sluice", str(ROOT / "charts/sluice"), "--kube-version=1.34.4",
               f"--namespace={namespace}", *(f"--set={v}" for v in values)]  # fmt: skip
    rendered = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return [d for d in yaml.safe_load_all(rendered) if d and d["kind"] != "Deployment"]


def declared(bodies: list[dict[str, Any]], suffix: str = "") -> Rights:
    """What the role with this name allows."""
    (role,) = (b for b in bodies if b["kind"] in {"Role", "ClusterRole"} and b["metadata"]["name"] == f"sluice-operator{suffix}")  # fmt: skip
    return as_rights(role["rules"])


def as_rights(rules: list[dict[str, Any]]) -> Rights:
    return {
        (group, resource, name, verb)
        for rule in rules
        for group in rule.get("apiGroups") or [""]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


@pytest.fixture
def rights(control_plane: ControlPlane, kubectl: Kubectl) -> Callable[[str], Rights]:
    """What the operator of the test's namespace may do in a namespace, apart from what anybody may."""

    def ask(namespace: str, account: str) -> Rights:
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }  # fmt: skip
        answer = kubectl.run(
            "create", "--validate=false", "-f", "-", "-o", "json", f"--as=system:serviceaccount:{kubectl.namespace}:{account}",
            "--as-group=system:serviceaccounts", "--as-group=system:authenticated", stdin=json.dumps(review),
        )  # fmt: skip
        status = json.loads(answer)["status"]
        assert not status["incomplete"]
        return as_rights(status["resourceRules"])

    def beyond_anybody(namespace: str) -> Rights:
        return ask(namespace, "sluice-operator") - ask(namespace, "nobody")

    return beyond_anybody


@pytest.fixture
def clusterwide(kubectl: Kubectl, helm: Path) -> Iterator[list[dict[str, Any]]]:
    """The chart's own default, installed into the test's namespace."""
    bodies = documents(helm, kubectl.namespace)
    kubectl.apply(*bodies)
    yield bodies
    kubectl.run("delete", "clusterrole,clusterrolebinding", "sluice-operator")


def test_for_all_namespaces_it_may_in_each_what_it_does_and_the_lease_only_in_its_own(
    clusterwide: list[dict[str, Any]], kubectl: Kubectl, rights: Callable[[str], Rights]
) -> None:
    assert declared(clusterwide, "-lease") == LEASE
    assert rights("default") == declared(clusterwide)
    assert rights(kubectl.namespace) == declared(clusterwide) | LEASE


def test_for_some_namespaces_it_may_nothing_in_another(
    kubectl: Kubectl, helm: Path, rights: Callable[[str], Rights]
) -> None:
    bodies = documents(helm, kubectl.namespace, f"watchNamespaces={{{kubectl.namespace}}}")
    kubectl.apply(*bodies)
    assert rights(kubectl.namespace) == declared(bodies) | LEASE
    assert rights("default") == set()
    assert rights("kube-system") == set()


def test_without_leader_election_it_may_touch_no_lease(
    kubectl: Kubectl, helm: Path, rights: Callable[[str], Rights]
) -> None:
    only = f"watchNamespaces={{{kubectl.namespace}}}"
    bodies = documents(helm, kubectl.namespace, only, "leaderElection.enabled=false", "replicas=1")
    kubectl.apply(*bodies)
    assert rights(kubectl.namespace) == declared(bodies)


@pytest.mark.parametrize("scope", ["all namespaces", "one namespace"])
def test_nothing_that_it_does_in_the_life_of_a_service_is_forbidden(
    scope: str, request: pytest.FixtureRequest, new_operator: Callable[..., OperatorProcess], deploy: Callable[..., Deployed]
) -> None:  # fmt: skip
    if scope == "all namespaces":
        request.getfixturevalue("clusterwide")
    operator = new_operator(**({"WATCH_NAMESPACES": ""} if scope == "all namespaces" else {}))
    operator.start()
    service = deploy(replicas=2, readiness={"minHoldSeconds": 1})
    service.until(lambda s: condition(s, "Ready")["status"] == "True")
    service.patch(replicas=1)
    service.until(lambda s: s["status"]["replicas"] == 1)
    operator.until_quiet()
    service.kubectl.run("delete", "emb", service.name, "--cascade=orphan")
    service.kubectl.eventually(
        lambda: operator.metric("sluice_desired_replicas"), lambda known: not known, within_seconds=20, what="forgotten"
    )
    assert 'code="403"' not in str(operator.metric("sluice_operator_kube_errors_total"))
    assert "orbidden" not in operator.log()
