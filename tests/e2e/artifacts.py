"""What is left behind when an end-to-end test fails: enough to find the cause without the cluster."""

from pathlib import Path

from tests.e2e.kubectl import Kubectl, KubectlError

_LOOKS = {
    "embeddingservices.yaml": ("get", "embeddingservices", "-o", "yaml"),
    "workloads.yaml": ("get", "deployments,replicasets,pods,services,endpointslices,pdb,pvc", "-o", "yaml"),
    "pods.txt": ("get", "pods", "-o", "wide"),
    "describe.txt": ("describe", "embeddingservices,pods"),
    "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
}


def collect(folder: Path, namespaces: list[Kubectl]) -> None:
    """Writes objects, events and every container's log of the namespaces under the folder."""
    for kubectl in namespaces:
        target = folder / kubectl.namespace
        target.mkdir(parents=True, exist_ok=True)
        for name, look in _LOOKS.items():
            _save(target / name, kubectl, *look)
        for pod in _pod_names(kubectl):
            _save(target / f"{pod}.log", kubectl, "logs", pod, "--all-containers", "--prefix", "--tail=2000")
            _save(target / f"{pod}.previous.log", kubectl, "logs", pod, "--all-containers", "--previous")


def _pod_names(kubectl: Kubectl) -> list[str]:
    try:
        return [name.removeprefix("pod/") for name in kubectl.run("get", "pods", "-o", "name").split()]
    except KubectlError:
        return []


def _save(path: Path, kubectl: Kubectl, *arguments: str) -> None:
    """Saves what kubectl says, or why it could not say it: an artifact must not hide the failure itself."""
    try:
        text = kubectl.run(*arguments)
    except (KubectlError, TimeoutError) as error:
        text = f"{error}\n"
    path.write_text(text)
