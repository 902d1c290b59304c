"""The API as a person meets it: what is refused and in which words, what is filled in, what kubectl shows."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from sluice_operator import metrics

from tests.e2e.kubectl import Kubectl
from tests.operator.builders import CRD, ROOT, SCHEMA, resource
from tests.operator.conftest import ControlPlane


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from _fields(field, f"{path}.{name}")
    items = schema.get("items")
    if isinstance(items, dict):
        yield from _fields(items, f"{path}[]")


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_says_what_it_is_for(part: str) -> None:
    silent = [path for path, field in _fields(SCHEMA["properties"][part]) if not field.get("description")]
    assert silent == []


def test_every_rule_says_what_to_do_in_a_sentence() -> None:
    def rules(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from schema.get("x-kubernetes-validations", [])
        parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
        for part in parts:
            if isinstance(part, dict):
                yield from rules(part)

    messages = [rule["message"] for rule in rules(SCHEMA)]
    assert len(messages) >= 15
    assert all(len(message.split()) >= 6 for message in messages)


def test_the_names_of_the_resource() -> None:
    names = CRD["spec"]["names"]
    assert names["shortNames"] == ["emb"]
    assert set(names["categories"]) == {"all", "sluice"}


REFUSED = {
    "min-above-max": ({"scaling": {"minReplicas": 5, "maxReplicas": 2}}, r"minReplicas.*maxReplicas.*raise"),
    "unknown-scheme": ({"model": {"uri": "ftp://models/minilm"}}, r"hf://.*s3://.*pvc://.*file://"),
    "bucket-without-name": ({"model": {"uri": "s3:///minilm"}}, r"s3://bucket/folder"),
    "branch-of-a-store": ({"model": {"uri": "s3://b-1/m", "revision": "main"}}, r"16 hexadecimal digits.*copy them"),
    "one-key-for-a-store": (
        {"model": {"uri": "s3://b-1/m", "credentialsSecretRef": {"name": "s", "key": "k"}}},
        r"leave it out for s3://, whose Secret has the keys AWS_ACCESS_KEY_ID",
    ),
    "store-of-a-hub": ({"model": {"uri": "hf://o/m", "s3": {"region": "x"}}}, r"leave it out unless.*s3://"),
    "endpoint-with-bucket": (
        {"model": {"uri": "s3://b-1/m", "s3": {"endpoint": "http://minio/bucket"}}},
        r"http://host\[:port\].*the bucket belongs into model.uri",
    ),
    "two-caches": (
        {"model": {"uri": "hf://o/m", "cache": {"emptyDir": {}, "persistentVolumeClaim": {"claimName": "c"}}}},
        r"either emptyDir.*or persistentVolumeClaim.*remove one",
    ),
    "downloads-of-a-claim": (
        {"model": {"uri": "pvc://c/m", "cache": {"persistentVolumeClaim": {"claimName": "d"}}}},
        r"nothing is downloaded for pvc://",
    ),
    "fingerprint-of-words": ({"model": {"uri": "hf://o/m", "fingerprint": "mine"}}, r"fingerprint.*should match"),
    "keys-twice": (
        {
            "model": {"uri": "s3://b-1/m", "credentialsSecretRef": {"name": "s"}},
            "env": [{"name": "AWS_ACCESS_KEY_ID", "value": "x"}],
        },
        r"credentialsSecretRef sets AWS_ACCESS_KEY_ID.*leave them out of spec.env",
    ),
    "region-twice": (
        {"model": {"uri": "s3://b-1/m", "s3": {"region": "x"}}, "env": [{"name": "AWS_REGION", "value": "y"}]},
        r"model.s3 sets AWS_ENDPOINT_URL_S3 and AWS_REGION: leave them out",
    ),
    "budget-of-none": ({"disruptionBudget": {"maxUnavailable": 0}}, r"maxUnavailable.*greater than or equal to 1"),
    "unknown-budget": ({"disruptionBudget": {"mode": "Never"}}, r"Auto.*Off"),
    "nobody": (
        {"networkPolicy": {"enabled": True, "from": [{}]}},
        r"each peer has either an ipBlock.*add or remove one",
    ),
    "two-peers-in-one": (
        {"networkPolicy": {"enabled": True, "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}},
        r"each peer has either an ipBlock",
    ),
    "reserved-monitor-label": (
        {"monitoring": {"serviceMonitor": {"labels": {"sluice.dev/x": "y"}}}},
        r"choose another prefix",
    ),
    "replicas-under-observe-are-fine-but-not-negative": ({"scaling": {"mode": "Observe"}, "replicas": -1}, r"replicas"),
    "hf-without-organisation": ({"model": {"uri": "hf://minilm"}}, r"hf://organisation/name"),
    "parent-folder": ({"model": {"uri": "pvc://claim/../other"}}, r"must not contain '\.\.'"),
    "revision-of-a-claim": ({"model": {"uri": "pvc://c/m", "revision": "main"}}, r"leave it out"),
    "revision-twice": ({"model": {"uri": "hf://o/m@v1", "revision": "v1"}}, r"given twice"),
    "token-for-a-claim": (
        {"model": {"uri": "pvc://c/m", "credentialsSecretRef": {"name": "s"}}},
        r"what a download needs: leave it out",
    ),
    "unordered-buckets": ({"server": {"buckets": [64, 32]}}, r"buckets must be ascending.*sort them"),
    "repeated-buckets": ({"server": {"buckets": [32, 32]}}, r"buckets must be ascending without repetition"),
    "unordered-batch-sizes": ({"server": {"batchSizes": [16, 8]}}, r"batchSizes must be ascending"),
    "bucket-beyond-batch": (
        {"server": {"buckets": [16, 512], "maxTokensPerBatch": 256}},
        r"maxTokensPerBatch is smaller.*raise",
    ),
    "soft-above-hard": (
        {"server": {"backpressure": {"latency": {"softP95Milliseconds": 300}}}},
        r"softP95Milliseconds must be below",
    ),
    "target-beyond-limit": (
        {"scaling": {"targetDrainMilliseconds": 3000}},
        r"targetDrainMilliseconds must not exceed",
    ),
    "replicas-under-internal": ({"replicas": 2}, r"Internal decides.*set scaling.mode to Off"),
    "external-without-replicas": ({"scaling": {"mode": "External"}}, r"External needs spec.replicas"),
    "reserved-variable": ({"env": [{"name": "MODEL_PATH", "value": "x"}]}, r"use the field of spec.model"),
    "reserved-label": ({"podMetadata": {"labels": {"sluice.dev/x": "y"}}}, r"choose another prefix"),
    "reserved-annotation": ({"podMetadata": {"annotations": {"sluice.dev/x": "y"}}}, r"choose another prefix"),
    "opens-above-where-it-closes": (
        {"readiness": {"openBelowPercent": 200}},
        r"openBelowPercent must be below.*lower openBelowPercent or raise closeAbovePercent",
    ),
    "gates-without-share": ({"readiness": {"maxClosedPercent": 0}}, r"maxClosedPercent.*greater than or equal to 1"),
    "more-than-all-closed": ({"readiness": {"maxClosedPercent": 101}}, r"maxClosedPercent.*less than or equal to 100"),
    "no-hold": ({"readiness": {"minHoldSeconds": 0}}, r"minHoldSeconds.*greater than or equal to 1"),
    "unknown-gates": ({"readiness": {"mode": "Sometimes"}}, r"Dynamic.*Startup.*Off"),
    "no-replicas-at-all": ({"scaling": {"minReplicas": 0}}, r"minReplicas.*greater than or equal to 1"),
    "unknown-mode": ({"scaling": {"mode": "Sometimes"}}, r"Internal.*External.*Observe.*Off"),
}


@pytest.mark.cluster
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_a_sentence_that_says_what_to_do(
    control_plane: ControlPlane, case: str
) -> None:
    kubectl = control_plane.kubectl("default")
    change, sentence = REFUSED[case]
    manifest = _manifest("refused") | {"spec": {"model": {"uri": "hf://o/m"}, **change}}
    refusal = kubectl.refusal("create", "-f", "-", stdin=json.dumps(manifest))
    assert re.search(sentence, refusal, re.DOTALL), refusal


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["a" * 51, "9lives", "a.b"])
def test_a_name_that_cannot_name_a_service_is_refused(control_plane: ControlPlane, name: str) -> None:
    refusal = control_plane.kubectl("default").refusal("create", "-f", "-", stdin=json.dumps(_manifest(name)))
    assert "the name also names a Service" in refusal


@pytest.mark.cluster
def test_a_misspelt_field_is_pointed_out(kubectl: Kubectl) -> None:
    manifest = _manifest("typo")
    manifest["spec"]["scalling"] = {}
    assert 'unknown field "spec.scalling"' in kubectl.refusal("create", "-f", "-", stdin=json.dumps(manifest))


@pytest.mark.cluster
def test_the_api_server_fills_in_what_the_tests_builders_fill_in(kubectl: Kubectl) -> None:
    kubectl.apply(_manifest("minilm"))
    stored = kubectl.get("embeddingservice", "minilm")["spec"]
    assert stored == resource(model={"uri": "hf://o/m"}, scaling={})["spec"]


@pytest.mark.cluster
def test_a_person_may_scale_by_hand_only_where_the_operator_does_not_decide(kubectl: Kubectl) -> None:
    by_hand = _manifest("by-hand")
    by_hand["spec"] |= {"scaling": {"mode": "Off"}, "replicas": 1}
    kubectl.apply(_manifest("internal"), by_hand)
    assert "Internal decides" in kubectl.refusal("scale", "embeddingservice", "internal", "--replicas=3")
    kubectl.run("scale", "emb", "by-hand", "--replicas=3")
    assert kubectl.get("emb", "by-hand")["spec"]["replicas"] == 3


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("scaling.mode", "spec.replicas, or minReplicas when that is left out"),
        ("model.uri", "s3://bucket/folder in an object store"),
        ("model.credentialsSecretRef", "AWS_SECRET_ACCESS_KEY and, where there is one, AWS_SESSION_TOKEN"),
        ("model.cache.persistentVolumeClaim", "All pods share one existing claim"),
        ("disruptionBudget.mode", "never lets the last open pod be evicted"),
        ("networkPolicy.from", "Without it, every pod of this namespace"),
        ("monitoring.serviceMonitor.enabled", "reason ServiceMonitorUnavailable"),
    ],
)
def test_explain_shows_what_a_field_is_for(control_plane: ControlPlane, field: str, words: str) -> None:
    explained = control_plane.kubectl("default").run("explain", f"emb.spec.{field}")
    assert words in " ".join(explained.split())


SAMPLES = sorted(path.name for path in (ROOT / "samples").glob("*.yaml"))


@pytest.mark.cluster
@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_accepted(kubectl: Kubectl, name: str) -> None:
    documents = list(yaml.safe_load_all((ROOT / "samples" / name).read_text()))
    known = [d for d in documents if d["apiVersion"].partition("/")[0] != "keda.sh"]
    assert "EmbeddingService" in {d["kind"] for d in known}
    stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": known})
    applied = kubectl.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=stdin)
    assert applied.count("created") == len(known)


def test_there_is_a_sample_for_each_way_to_begin() -> None:
    assert {"cpu.yaml", "gpu.yaml", "s3.yaml", "existing-pvc.yaml", "external-hpa.yaml", "external-keda.yaml"} <= set(
        SAMPLES
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("external-hpa.yaml", "HorizontalPodAutoscaler"), ("external-keda.yaml", "ScaledObject")]
)
def test_an_autoscaler_scales_the_service_beside_it_within_its_bounds(name: str, kind: str) -> None:
    by_kind = {d["kind"]: d for d in yaml.safe_load_all((ROOT / "samples" / name).read_text())}
    service, scaler = by_kind["EmbeddingService"], by_kind[kind]["spec"]
    assert service["spec"]["scaling"]["mode"] == "External"
    assert scaler["scaleTargetRef"] == {
        "apiVersion": service["apiVersion"], "kind": "EmbeddingService", "name": service["metadata"]["name"],
    }  # fmt: skip
    bounds = (service["spec"]["scaling"]["minReplicas"], service["spec"]["scaling"]["maxReplicas"])
    if kind == "ScaledObject":
        assert (scaler["minReplicaCount"], scaler["maxReplicaCount"]) == bounds
        (trigger,) = scaler["triggers"]
        assert (trigger["type"], trigger["metricType"], trigger["metadata"]["threshold"]) == (
            "prometheus",
            "AverageValue",
            "1",
        )
        read = trigger["metadata"]["query"]
    else:
        assert (scaler["minReplicas"], scaler["maxReplicas"]) == bounds
        (metric,) = scaler["metrics"]
        assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}
        read = metric["external"]["metric"]["name"]
    assert metrics.RECOMMENDED_REPLICAS.describe()[0].name in read


def _manifest(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "hf://o/m"}},
    }
