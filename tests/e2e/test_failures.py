"""What goes wrong, and what a person at night then sees."""

import json
import re

import pytest

from tests.e2e.conftest import Service, embedding_service
from tests.e2e.kubectl import Kubectl, condition

pytestmark = pytest.mark.e2e


def test_a_deleted_pod_costs_a_steady_client_nothing_and_the_status_tells_the_story(service: Service) -> None:
    with service.steady_client() as client:
        victim, other = (p["metadata"]["name"] for p in service.pods())
        service.kubectl.run("delete", "pod", victim, "--wait=false")
        fewer = service.eventually(lambda s: s["status"].get("readyReplicas") == 1, within_seconds=30)
        assert condition(fewer, "Available")["status"] == "True", "one replica still serves"
        again = service.eventually(lambda s: s["status"].get("readyReplicas") == 2, within_seconds=180)
        assert condition(again, "Ready")["status"] == "True"
    assert set(client.outcomes) == {"OK"}, client.outcomes
    assert client.outcomes["OK"] > 20
    names = {p["metadata"]["name"] for p in service.pods()}
    assert other in names
    assert victim not in names


def test_a_model_path_that_does_not_exist_is_named_in_the_status_without_a_crash_loop(
    cluster_kubectl: Kubectl,
) -> None:
    manifest = embedding_service("no-such-model", uri="file:///models/does-not-exist")
    cluster_kubectl.apply(manifest)
    service = Service("no-such-model", cluster_kubectl)
    try:
        failed = service.eventually(
            lambda s: "/models/does-not-exist" in condition(s, "ModelLoaded")["message"], within_seconds=180
        )  # fmt: skip
        assert condition(failed, "ModelLoaded")["status"] == "False"
        assert condition(failed, "Ready")["status"] == "False"
        restarts = [c["restartCount"] for p in service.pods() for c in p["status"]["containerStatuses"]]
        assert restarts == [0] * len(restarts)
        assert restarts, "the pod runs and reports, instead of crashing"
    finally:
        cluster_kubectl.run("delete", "embeddingservice", service.name, "--timeout=120s", timeout_seconds=130)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scaling": {"minReplicas": 5, "maxReplicas": 2}}, r"minReplicas.*maxReplicas"),
        ({"model": {"uri": "ftp://models/minilm"}}, r"hf://.*pvc://"),
        ({"server": {"buckets": [64, 32]}}, r"buckets.*ascending"),
    ],
    ids=["min-above-max", "unknown-scheme", "buckets-out-of-order"],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_a_sentence_that_says_what_to_do(
    cluster_kubectl: Kubectl, change: dict[str, object], sentence: str
) -> None:
    manifest = embedding_service("refused", uri="hf://sentence-transformers/all-MiniLM-L6-v2")
    manifest["spec"] |= change
    refusal = cluster_kubectl.refusal("apply", "-f", "-", stdin=json.dumps(manifest))
    assert re.search(sentence, refusal), refusal
