"""`kubectl apply` an EmbeddingService; get real embeddings over gRPC from real pods."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.e2e.conftest import Service
from tests.e2e.kubectl import condition

pytestmark = pytest.mark.e2e

TEXTS = [
    "How do I return a pair of shoes that does not fit?",
    "Returns are free within thirty days of delivery.",
    "The cat sat on the mat.",
    "Wireless over-ear headphones with active noise cancelling, 40 hours of battery life, and a folding case " * 8,
    "x",
]


def test_an_applied_service_becomes_ready_with_both_replicas_behind_its_address(service: Service) -> None:
    resource = service.get()
    assert condition(resource, "Ready")["status"] == "True"
    assert condition(resource, "ModelLoaded")["status"] == "True"
    assert resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
    assert resource["status"]["readyReplicas"] == 2
    assert resource["status"]["endpoint"] == f"{service.name}.{service.kubectl.namespace}.svc:50051"
    slices = service.kubectl.get("endpointslices", "-l", f"kubernetes.io/service-name={service.name}")["items"]
    ready = [e for s in slices for e in s["endpoints"] if e["conditions"]["ready"]]
    assert len(ready) == 2


def test_kubectl_get_shows_a_table_that_a_person_can_read(service: Service) -> None:
    header, row = service.kubectl.run("get", "embeddingservices", service.name).splitlines()
    for column in ("NAME", "READY", "REPLICAS", "DESIRED", "DRAIN", "REASON", "AGE"):
        assert column in header
    assert row.split()[:2] == [service.name, "True"]


def test_embeddings_served_in_the_cluster_equal_sentence_transformers(service: Service) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(service.model_folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    output = service.run_client("embed_texts.py", {"TEXTS": json.dumps(TEXTS)})
    served = np.array(json.loads(output.splitlines()[-1]), dtype=np.float32)
    assert served.shape == expected.shape
    assert (served * expected).sum(axis=1).min() >= 0.9999


def test_the_stock_client_of_the_seed_system_succeeds_through_a_port_forward(service: Service) -> None:
    with service.kubectl.port_forward(f"service/{service.name}", 50051, 50051):
        done = subprocess.run(
            [sys.executable, "-m", "coral_gpu_inference.test_client"],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    assert "Success!" in done.stdout, done.stdout + done.stderr
    assert "Received 3 embeddings" in done.stdout
    assert "status: healthy" in done.stdout


def test_a_steady_service_is_left_alone(service: Service) -> None:
    """Polls go on, yet neither the children nor any condition is written anew."""
    before, deployment = service.get(), service.kubectl.get("deployment", service.name)
    service.run_client("embed_texts.py", {"TEXTS": json.dumps(TEXTS)})
    after, deployment_after = service.get(), service.kubectl.get("deployment", service.name)
    assert after["status"]["conditions"] == before["status"]["conditions"]
    assert deployment_after["metadata"]["generation"] == deployment["metadata"]["generation"]
