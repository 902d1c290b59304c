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
    assert set(made) == {
        ("Service", "minilm"), ("Service", "minilm-headless"), ("Deployment", "minilm"), ("PodDisruptionBudget", "minilm"),
    }  # fmt: skip
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
        "LOG_LEVEL": "DEBUG", "HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}},
    }  # fmt: skip
    assert {name: seen[name] for name in expected} == expected


def test_what_the_spec_passes_on_reaches_the_pod_as_it_is() -> None:
    passed = {
        "nodeSelector": {"a": "b"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}}, "priorityClassName": "high", "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "registry"}], "serviceAccountName": "reads-models",
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
    "asked",
    [{}, {"networkPolicy": {"enabled": True}}, {"monitoring": {"serviceMonitor": {"enabled": True}}},
     {"disruptionBudget": {"mode": "Off"}}],
    ids=["nothing more", "policy", "monitor", "no budget"],
)  # fmt: skip
def test_what_the_spec_asks_for_is_what_is_made_and_what_may_be_deleted_again(asked: dict[str, Any]) -> None:
    wanted = service(replicas=2, **asked)
    assert set(children(wanted)) == manifests.wanted_names(wanted)
    assert manifests.wanted_names(wanted) <= set(manifests.child_names("minilm"))


@pytest.mark.parametrize(
    ("replicas", "gated", "allowed"),
    [
        (4, 0, 1),  # one open pod at a time
        (4, 1, 2),  # the gated pod uses nothing of the budget up
        (4, 2, 3),  # one of two open pods may go
        (4, 3, 3),  # the last open pod stays
        (2, 1, 1),
        (1, 0, 1),  # a single pod may go, or its node could never be drained
    ],
)
def test_closed_gates_neither_block_drains_nor_let_the_last_open_pod_go(
    replicas: int, gated: int, allowed: int
) -> None:
    budget = manifests.disruption_budget(service(replicas=4), replicas, gated)["spec"]
    assert budget["maxUnavailable"] == allowed
    assert budget["unhealthyPodEvictionPolicy"] == "IfHealthyBudget"
    healthy, must_stay = replicas - gated, replicas - allowed
    assert healthy > must_stay or healthy == 1, "an open pod can be evicted, unless it is the last"
    assert must_stay >= 1 or replicas == 1
    assert healthy >= must_stay, "IfHealthyBudget lets gated pods go"


def test_more_pods_may_go_at_once_where_the_spec_says_so() -> None:
    wanted = service(replicas=9, disruptionBudget={"maxUnavailable": 3})
    assert manifests.disruption_budget(wanted, 9, 1)["spec"]["maxUnavailable"] == 4


def test_a_model_of_an_object_store_and_its_credentials() -> None:
    wanted = service(
        model={
            "uri": "s3://models/minilm/v2", "revision": "01234567-89abcdef", "credentialsSecretRef": {"name": "store"},
            "s3": {"endpoint": "http://minio.storage.svc:9000", "region": "eu-central-1"},
        }
    )  # fmt: skip
    seen = environment_of(wanted)
    expected = {
        "MODEL_PATH": "s3://models/minilm/v2", "MODEL_REVISION": "01234567-89abcdef",
        "AWS_ENDPOINT_URL_S3": "http://minio.storage.svc:9000", "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "store", "key": "AWS_ACCESS_KEY_ID"}},
        "AWS_SECRET_ACCESS_KEY": {"secretKeyRef": {"name": "store", "key": "AWS_SECRET_ACCESS_KEY"}},
        "AWS_SESSION_TOKEN": {"secretKeyRef": {"name": "store", "key": "AWS_SESSION_TOKEN", "optional": True}},
    }  # fmt: skip
    assert {name: seen[name] for name in expected} == expected
    assert "HF_TOKEN" not in seen


def test_a_token_under_another_key() -> None:
    wanted = service(model={"uri": "hf://o/m", "credentialsSecretRef": {"name": "hub", "key": "token"}})
    assert environment_of(wanted)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_downloads_are_kept_by_each_pod_or_shared() -> None:
    own = service(model={"uri": "hf://o/m", "cache": {"emptyDir": {"sizeLimit": "4Gi"}}})
    assert {"name": "cache", "emptyDir": {"sizeLimit": "4Gi"}} in pod(own)["volumes"]
    assert environment_of(own)["MODEL_CACHE_DIR"] == "/var/cache/sluice/models"
    assert environment_of(own)["TORCHINDUCTOR_CACHE_DIR"] == "/var/cache/sluice/inductor"
    shared = service(model={"uri": "hf://o/m", "cache": {"persistentVolumeClaim": {"claimName": "downloads"}}})
    assert {"name": "downloads", "persistentVolumeClaim": {"claimName": "downloads"}} in pod(shared)["volumes"]
    assert {"name": "downloads", "mountPath": "/var/cache/sluice-models"} in pod(shared)["containers"][0][
        "volumeMounts"
    ]
    assert environment_of(shared)["MODEL_CACHE_DIR"] == "/var/cache/sluice-models"
    assert environment_of(shared)["TORCHINDUCTOR_CACHE_DIR"] == "/var/cache/sluice-models/inductor"


@pytest.mark.parametrize(
    ("change", "is_other_model"),
    [
        ({}, False), ({"dtype": "bfloat16"}, False), ({"maxInputTokens": 64}, False),
        ({"cache": {"emptyDir": {"sizeLimit": "1Gi"}}}, False),
        ({"uri": "hf://o/other"}, True), ({"revision": "v2"}, True), ({"pooling": "cls"}, True),
        ({"excludeTokens": ["[q]"]}, True), ({"fingerprint": "01234567-89abcdef"}, True),
    ],
)  # fmt: skip
def test_what_declares_other_vectors(change: dict[str, Any], is_other_model: bool) -> None:
    before = pod_template.declaration(service(model={"uri": "hf://o/m"}).spec.model)
    after = service(model={"uri": "hf://o/m", **change})
    assert (pod_template.declaration(after.spec.model) != before) is is_other_model
    template = pod_template.pod_template(after, "i")
    assert template["metadata"]["annotations"]["sluice.dev/model-declaration"] == pod_template.declaration(
        after.spec.model
    )


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
