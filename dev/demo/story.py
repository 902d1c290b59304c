"""The sample: an EmbeddingService applied, watched until Ready, and asked by a client inside the cluster."""

import subprocess
import time
from pathlib import Path

from dev.console import DevError, run, step, wait_until
from dev.demo.model import MODEL, ensure_model, volume
from dev.demo.target import Target

NAMESPACE = "default"
NAME = "minilm"
_CLAIM = "models"
_READY_WITHIN_SECONDS = 600


def apply_sample(target: Target) -> None:
    """The model's volume and the EmbeddingService."""
    ensure_model()
    with step(f"EmbeddingService {NAME}"):
        target.apply(*volume("sluice-demo-models", NAMESPACE, _CLAIM))
        target.apply(sample())


def sample() -> dict[str, object]:
    """Two replicas, small enough for two cores."""
    return {
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": f"pvc://{_CLAIM}/{MODEL}"},
            "replicas": 2,
            "scaling": {"mode": "Off"},
            "resources": {"requests": {"cpu": "250m", "memory": "1280Mi"}},
        },
    }


def watch_until_ready(target: Target) -> None:
    """Shows the table each time that it changes.

    Raises:
        DevError: Not Ready in time; the message holds what the cluster says about it.
    """
    get = [*target.kubectl, f"--namespace={NAMESPACE}", "get", "embeddingservices"]
    print(f"\n$ kubectl get embeddingservices   (until {NAME} is Ready)", flush=True)
    shown: list[str] = []
    deadline = time.monotonic() + _READY_WITHIN_SECONDS
    ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    while True:
        table = run(get)
        without_age = [line.rsplit(maxsplit=1)[0] for line in table.splitlines()]
        if without_age != shown:
            shown = without_age
            print(table, flush=True)
        if run([*get, NAME, "-o", ready]) == "True":
            return
        if time.monotonic() > deadline:
            raise DevError(f"{NAME} is not Ready after {_READY_WITHIN_SECONDS} s\n{_reasons(target)}")
        time.sleep(1)


def run_client(target: Target) -> None:
    """Runs client.py in a pod of the server's image, and shows what it prints."""
    kubectl = [*target.kubectl, f"--namespace={NAMESPACE}"]
    container = {
        "name": "client",
        "image": target.images["server"],
        "command": ["python3", "-c", (Path(__file__).parent / "client.py").read_text()],
        "env": [{"name": "TARGET", "value": f"dns:///{NAME}-headless:50051"}],
    }
    pod: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sluice-demo-client", "namespace": NAMESPACE},
        "spec": {"restartPolicy": "Never", "enableServiceLinks": False, "containers": [container]},
    }
    with step("a client inside the cluster"):
        run([*kubectl, "delete", "pod", "sluice-demo-client", "--ignore-not-found", "--timeout=60s"])
        target.apply(pod)
        phase = [*kubectl, "get", "pod", "sluice-demo-client", "-o", "jsonpath={.status.phase}"]
        wait_until(
            lambda: run(phase) in ("Succeeded", "Failed"), what="the client ends", within_seconds=180, every_seconds=0.5
        )
    said = run([*kubectl, "logs", "sluice-demo-client"])
    if run(phase) != "Succeeded":
        raise DevError(f"the client failed:\n{said}")
    print(f"\n{said}", flush=True)


def _reasons(target: Target) -> str:
    """What a person would look at next."""
    kubectl = [*target.kubectl, f"--namespace={NAMESPACE}"]
    looks = (
        ["describe", "embeddingservice", NAME],
        ["get", "pods", "-o", "wide"],
        ["get", "events", "--sort-by=.lastTimestamp"],
        ["logs", "-l", f"sluice.dev/embeddingservice={NAME}", "--tail=20", "--prefix"],
    )
    return "\n".join(
        subprocess.run([*kubectl, *look], capture_output=True, text=True, timeout=30, check=False).stdout
        for look in looks
    )
