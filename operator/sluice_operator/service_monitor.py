"""How Prometheus finds the pods' metrics, as a ServiceMonitor of the Prometheus operator. Pure.

It selects the headless Service alone: through both Services every pod would be asked twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice_operator.ownership import metadata
from sluice_operator.pod_template import identity

if TYPE_CHECKING:
    from sluice_operator.spec import EmbeddingService

API_VERSION = "monitoring.coreos.com/v1"
KIND = "ServiceMonitor"
SCRAPE_LABEL = "sluice.dev/scrape"
"""Label of the Service whose endpoints are asked."""

Json = dict[str, Any]


def service_monitor(service: EmbeddingService) -> Json:
    """Asks every pod for /metrics, whether its gate is open or not."""
    spec = service.spec.monitoring.service_monitor
    about = metadata(service, service.name)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {**about, "labels": {**spec.labels, **about["labels"]}},
        "spec": {
            "selector": {"matchLabels": {**identity(service.name), SCRAPE_LABEL: "true"}},
            "namespaceSelector": {"matchNames": [service.namespace]},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": f"{spec.interval_seconds}s"}],
        },
    }
