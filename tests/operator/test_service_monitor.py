"""How Prometheus finds the pods' metrics."""

from sluice_operator import manifests
from sluice_operator.service_monitor import service_monitor

from tests.operator.builders import service

WANTED = service(monitoring={"serviceMonitor": {"enabled": True, "intervalSeconds": 30, "labels": {"release": "prom"}}})


def test_it_asks_every_pod_once_through_the_headless_service() -> None:
    spec = service_monitor(WANTED)["spec"]
    asked = spec["selector"]["matchLabels"].items()
    assert asked <= manifests.headless_service(WANTED)["metadata"]["labels"].items()
    assert not asked <= manifests.cluster_service(WANTED)["metadata"]["labels"].items()
    assert spec["namespaceSelector"] == {"matchNames": ["shop"]}
    assert spec["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "30s"}]
    assert "http" in {p["name"] for p in manifests.headless_service(WANTED)["spec"]["ports"]}


def test_it_carries_the_labels_that_a_prometheus_looks_for() -> None:
    about = service_monitor(WANTED)["metadata"]
    assert about["labels"]["release"] == "prom"
    assert about["labels"]["sluice.dev/embeddingservice"] == "minilm"
