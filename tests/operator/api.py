"""A client of the API server for those who look again anyway."""

from pathlib import Path

from kubernetes import client, config


def api_client(kubeconfig: Path) -> client.ApiClient:
    """Whose requests fail at once: one that hangs in an outage and is tried again would keep its loop for long."""
    configuration = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.retries = False
    return client.ApiClient(configuration)
