"""The Helm chart: what it renders, what it refuses, and which rights it gives."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from sluice_operator.settings import Settings

from tests.e2e.kubectl import Kubectl
from tests.operator.builders import ROOT

pytestmark = pytest.mark.cluster

CHART = str(ROOT / "charts/sluice")


def render(helm: Path, *values: str) -> dict[str, list[dict[str, Any]]]:
    command = [str(helm), "template", "sluice", CHART, "--kube-version=1.34.4", "--namespace=sluice-system"]
    done = subprocess.run(
        command + [f"--set={v}" for v in values], capture_output=True, text=True, timeout=60, check=True
    )
    kinds: dict[str, list[dict[str, Any]]] = {}
    for body in filter(None, yaml.safe_load_all(done.stdout)):
        kinds.setdefault(body["kind"], []).append(body)
    return kinds


def rights(rules: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def test_the_chart_is_well_formed(helm: Path) -> None:
    done = subprocess.run(
        [str(helm), "lint", "--strict", CHART], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_may_do_what_it_does_and_nothing_more(helm: Path) -> None:
    (role,) = render(helm)["ClusterRole"]
    allowed = rights(role["rules"])
    assert not {verb for _, verb in allowed} - {"get", "list", "watch", "create", "patch", "delete"}
    assert {r for r, v in allowed if v == "delete"} == {"poddisruptionbudgets", "networkpolicies", "servicemonitors"}
    assert {r for r, v in allowed if v == "patch"} == {
        "embeddingservices/status", "pods/status", "deployments", "services", "poddisruptionbudgets",
        "networkpolicies", "servicemonitors",
    }  # fmt: skip
    assert not {r for r, _ in allowed} & {"secrets", "configmaps", "nodes", "namespaces", "*"}


def test_for_some_namespaces_it_has_no_right_anywhere_else(helm: Path) -> None:
    made = render(helm, "watchNamespaces={shop,search}")
    assert "ClusterRole" not in made
    assert "ClusterRoleBinding" not in made
    for kind in ("Role", "RoleBinding"):
        where = {(b["metadata"]["namespace"], b["metadata"]["name"]) for b in made[kind]}
        assert where == {
            ("shop", "sluice-operator"), ("search", "sluice-operator"), ("sluice-system", "sluice-operator-lease"),
        }  # fmt: skip
    env = {e["name"]: e.get("value") for e in made["Deployment"][0]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["WATCH_NAMESPACES"] == "shop,search"


def test_values_reach_the_operator(helm: Path) -> None:
    made = render(helm, "serverImage=r/s:1", "image.repository=r/o", "image.tag=v2", "operator.pollIntervalSeconds=5")
    container = made["Deployment"][0]["spec"]["template"]["spec"]["containers"][0]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert container["image"] == "r/o:v2"
    assert (env["SERVER_IMAGE"], env["POLL_INTERVAL_SECONDS"]) == ("r/s:1", "5")


def test_a_leader_and_a_standby_run_on_different_nodes_where_there_are_some(helm: Path) -> None:
    (deployment,) = render(helm)["Deployment"]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    spec = deployment["spec"]["template"]["spec"]
    (term,) = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert term["podAffinityTerm"]["labelSelector"] == deployment["spec"]["selector"]
    probes = {kind: spec["containers"][0][kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}
    assert probes == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_a_single_operator_may_do_without_a_lease_and_two_may_not(helm: Path) -> None:
    alone = render(helm, "replicas=1", "leaderElection.enabled=false")
    assert alone["Deployment"][0]["spec"]["strategy"] == {"type": "Recreate"}
    assert "Role" not in alone
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, "leaderElection.enabled=false")
    assert "two operators would write at the same time. Set replicas to 1" in refused.value.stderr


def test_every_value_of_the_lease_is_a_setting_of_the_operator(helm: Path) -> None:
    made = render(helm, "leaderElection.leaseDurationSeconds=30", "leaderElection.renewDeadlineSeconds=20")
    given = made["Deployment"][0]["spec"]["template"]["spec"]["containers"][0]["env"]
    env = {e["name"]: e["value"] for e in given if "value" in e}
    names = {name: value for name, value in env.items() if name.lower() in Settings.model_fields}
    assert names.keys() == env.keys(), "the chart sets what the operator does not know"
    assert (env["LEASE_DURATION_SECONDS"], env["LEASE_RENEW_DEADLINE_SECONDS"]) == ("30", "20")
    assert env["LEASE_NAME"] == "sluice-operator"
    assert {e["name"] for e in given if "valueFrom" in e} == {"IDENTITY", "LEASE_NAMESPACE"}


def test_a_misspelt_value_is_refused(helm: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(helm, "watchNamespace=shop")
    assert "watchNamespace" in refused.value.stderr


def test_the_operators_pod_meets_the_restricted_standard(helm: Path, kubectl: Kubectl) -> None:
    kubectl.run("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/enforce=restricted")
    deployment = render(helm)["Deployment"][0]
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": template["spec"]}
    kubectl.run("create", "serviceaccount", template["spec"]["serviceAccountName"])
    kubectl.apply(pod)
