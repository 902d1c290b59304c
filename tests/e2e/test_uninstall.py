"""The last look: Helm takes the operator away while an EmbeddingService is still there."""

import subprocess

import pytest

from tests.e2e.conftest import Installation, Service
from tests.e2e.kubectl import condition

pytestmark = pytest.mark.e2e


def test_helm_uninstall_with_a_service_still_there_leaves_no_object_stuck(
    installation: Installation, service: Service
) -> None:
    assert condition(service.get(), "Ready")["status"] == "True"
    subprocess.run(installation.helm("uninstall", "sluice", "--wait", "--timeout=2m"), check=True, timeout=150)
    assert condition(service.get(), "Ready")["status"] == "True", "pods keep serving without their operator"
    service.kubectl.run("delete", "embeddingservice", service.name, "--timeout=60s", timeout_seconds=70)
    service.kubectl.eventually(
        lambda: service.kubectl.get(
            "pods,deployments,services,endpointslices", "-l", f"sluice.dev/embeddingservice={service.name}"
        )["items"],
        lambda items: not items,
        within_seconds=120,
        what="every child of the deleted service is gone",
    )
