"""The objects of a service, and what of the spec ends where."""

import json
from typing import Any

import pytest
from sluice_operator import environment, manifests, pod_template
from sluice_operator.spec import EmbeddingService

from tests.operator.builders import service


def children(wanted: EmbeddingService, replicas: int = 2) -> dict[tuple[str, str], dict[str, Any]]:
    made = manifests.children(wanted, image="sluice-server:1", replicas=replicas)
    return {(m["kind"], m["metadata"]["name"]): m for m in made}


def pod(wanted: EmbeddingService) -> dict[str, Any]:
    return children(wanted)["Deployment", wanted.name]["spec"]["template"]["spec"]


def environment_of(wanted: EmbeddingService) -> dict[str, Any]:
    variables = pod(wanted)["containers"][0]["env"]
    names = [v["name"] for v in variables]
    assert len(names) == len(set(names))
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in variables}


def test_a_service_is_a_deployment_two_services_and_a_budget() -> None:
    made = children(service(replicas=2))
    assert set(made) == set(manifests.child_names("minilm"))
    for body in made.values():
        assert body["metadata"]["labels"]["sluice.dev/embeddingservice"] == "minilm"
        assert [o["uid"] for o in body["metadata"]["ownerReferences"]] == ["uid-1"]


@pytest.mark.parametrize(
    ("spec", "has_budget"),
    [
        ({"replicas": 1}, False),
        ({"replicas": 2}, True),
        ({"scaling": {"mode": "Internal"}}, True),
        ({"scaling": {"mode": "Internal", "maxReplicas": 1}}, False),
    ],
)
def test_a_budget_exists_only_where_there_can_be_more_than_one_pod(spec: dict[str, Any], has_budget: bool) -> None:
    assert (("PodDisruptionBudget", "minilm") in children(service(**spec))) is has_budget


@pytest.mark.parametrize(
    ("uri", "path", "claim"),
    [
        ("hf://org/name", "hf://org/name", None),
        ("hf://org/name@v1", "hf://org/name@v1", None),
        ("file:///opt/model", "file:///opt/model", None),
        ("pvc://models/minilm/v2", "/models/minilm/v2", "models"),
        ("pvc://models/minilm/", "/models/minilm", "models"),
        ("pvc://models", "/models", "models"),
    ],
)
def test_where_the_server_finds_its_model(uri: str, path: str, claim: str | None) -> None:
    wanted = service(model={"uri": uri})
    assert environment_of(wanted)["MODEL_PATH"] == path
    volumes = {v["name"]: v for v in pod(wanted)["volumes"]}
    mounts = {m["name"]: m for m in pod(wanted)["containers"][0]["volumeMounts"]}
    if claim is None:
        assert "models" not in volumes
    else:
        assert volumes["models"]["persistentVolumeClaim"] == {"claimName": claim, "readOnly": True}
        assert mounts["models"] == {"name": "models", "mountPath": "/models", "readOnly": True}


def test_every_field_of_the_spec_reaches_the_server() -> None:
    wanted = service(
        model={
            "uri": "hf://o/m", "revision": "v1", "dtype": "bfloat16", "quantization": "none", "pooling": "cls",
            "excludeTokens": ["[query]", "[title]"], "maxInputTokens": 128,
            "credentialsSecretRef": {"name": "hub"},
        },
        server={
            "device": "cuda", "layout": "packed", "buckets": [16, 64], "batchSizes": [4, 8], "maxTokensPerBatch": 4096,
            "deadlineWaitMilliseconds": 7,
            "backpressure": {
                "throughput": {"enabled": False, "maxDrainMilliseconds": 900, "maxQueuedTokens": 5000},
                "latency": {"enabled": True, "softP95Milliseconds": 5, "hardP95Milliseconds": 9, "windowSeconds": 3},
            },
        },
        env=[{"name": "LOG_LEVEL", "value": "DEBUG"}],
    )  # fmt: skip
    seen = environment_of(wanted)
    expected = {
        "MODEL_PATH": "hf://o/m", "MODEL_REVISION": "v1", "DTYPE": "bfloat16", "QUANTIZATION": "none", "POOLING": "cls",
        "EXCLUDE_TOKENS": "[query],[title]", "MAX_INPUT_TOKENS": "128", "DEVICE": "cuda", "LAYOUT": "packed",
        "BUCKETS": "16,64", "BATCH_SIZES": "4,8", "MAX_BATCH_SIZE": "8", "MAX_TOKENS_PER_BATCH": "4096",
        "DEADLINE_WAIT_MS": "7", "BACKPRESSURE_THROUGHPUT_ENABLED": "false", "BACKPRESSURE_MAX_DRAIN_MS": "900",
        "BACKPRESSURE_MAX_QUEUED_TOKENS": "5000", "BACKPRESSURE_LATENCY_ENABLED": "true",
        "BACKPRESSURE_SOFT_P95_MS": "5", "BACKPRESSURE_HARD_P95_MS": "9", "BACKPRESSURE_WINDOW_SECONDS": "3",
        "LOG_LEVEL": "DEBUG", "HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}},
    }  # fmt: skip
    assert {name: seen[name] for name in expected} == expected


def test_what_the_spec_passes_on_reaches_the_pod_as_it_is() -> None:
    passed = {
        "nodeSelector": {"a": "b"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}}, "priorityClassName": "high", "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "registry"}],
    }  # fmt: skip
    resources = {"limits": {"memory": "2Gi"}}
    seen = pod(service(resources=resources, **passed))
    assert {name: seen[name] for name in passed} == passed
    assert seen["containers"][0]["resources"] == resources


def test_pods_are_labelled_for_the_service_whatever_the_user_adds() -> None:
    wanted = service(podMetadata={"labels": {"team": "search"}, "annotations": {"note": "x"}})
    metadata = children(wanted)["Deployment", "minilm"]["spec"]["template"]["metadata"]
    assert metadata["labels"] == {
        "team": "search", "app.kubernetes.io/name": "sluice-server",
        "app.kubernetes.io/managed-by": "sluice-operator", "sluice.dev/embeddingservice": "minilm",
    }  # fmt: skip
    assert metadata["annotations"]["note"] == "x"


def test_a_pod_is_as_restricted_as_the_restricted_standard_asks() -> None:
    seen = pod(service())
    container = seen["containers"][0]
    assert seen["securityContext"]["runAsNonRoot"] is True
    assert seen["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert seen["automountServiceAccountToken"] is False
    assert seen["enableServiceLinks"] is False


@pytest.mark.parametrize(("mode", "gates"), [("Startup", 1), ("Off", 0)])
def test_only_a_service_with_gates_has_pods_that_wait_for_one(mode: str, gates: int) -> None:
    assert len(pod(service(readiness={"mode": mode})).get("readinessGates", [])) == gates


@pytest.mark.parametrize(
    ("drain_milliseconds", "drain_seconds"), [(100, 5), (2000, 5), (2600, 6), (600_000, 1200)]
)  # fmt: skip
def test_a_stopping_pod_is_given_twice_what_it_admits(drain_milliseconds: int, drain_seconds: int) -> None:
    wanted = service(server={"backpressure": {"throughput": {"maxDrainMilliseconds": drain_milliseconds}}})
    assert environment.drain_seconds(wanted.spec.server) == drain_seconds
    assert environment_of(wanted)["SHUTDOWN_DRAIN_SECONDS"] == str(drain_seconds)
    assert pod(wanted)["terminationGracePeriodSeconds"] > drain_seconds + environment.PROPAGATION_SECONDS


@pytest.mark.parametrize(
    ("resources", "surge", "unavailable"),
    [
        (None, 1, 0),
        ({"requests": {"cpu": "2"}}, 1, 0),
        ({"limits": {"nvidia.com/gpu": 1}}, 0, 1),
    ],
)
def test_a_rollout_needs_no_spare_device(resources: Any, surge: int, unavailable: int) -> None:
    strategy = children(service(resources=resources))["Deployment", "minilm"]["spec"]["strategy"]["rollingUpdate"]
    assert (strategy["maxSurge"], strategy["maxUnavailable"]) == (surge, unavailable)


def test_the_template_hash_tells_versions_of_the_spec_apart_and_nothing_else() -> None:
    def version(wanted: EmbeddingService, replicas: int = 1) -> str:
        deployment = manifests.deployment(wanted, "sluice-server:1", replicas)
        return pod_template.template_hash(deployment["spec"]["template"])

    assert version(service()) == version(service(), replicas=7)
    assert version(service()) != version(service(model={"uri": "hf://o/other"}))
    assert version(service()) != pod_template.template_hash(pod_template.pod_template(service(), "sluice-server:2"))


def test_the_selector_is_that_of_the_deployment() -> None:
    matched = children(service())["Deployment", "minilm"]["spec"]["selector"]["matchLabels"]
    assert dict(part.split("=") for part in manifests.selector("minilm").split(",")) == matched


def test_manifests_are_json() -> None:
    for body in children(service()).values():
        assert json.loads(json.dumps(body)) == body
