"""The chart into the cluster."""

from dev.console import run, step
from dev.demo.target import Target
from dev.paths import ROOT

NAMESPACE = "sluice-system"
RELEASE = "sluice"


def install_chart(target: Target) -> None:
    """Installs or upgrades the release and waits until the operator runs.

    Helm installs a CRD once and never changes it: it is applied anew here, as the README tells users to.
    """
    with step("chart sluice"):
        crd = ROOT / "crds" / "embeddingservices.sluice.dev.yaml"
        run([*target.kubectl, "apply", "--server-side", "--force-conflicts", "-f", crd])
        repository, _, tag = target.images["operator"].rpartition(":")
        values = {"image.repository": repository, "image.tag": tag, "serverImage": target.images["server"]}
        run(
            [
                *target.helm, "upgrade", "--install", RELEASE, ROOT / "charts" / "sluice",
                f"--namespace={NAMESPACE}", "--create-namespace", "--wait", "--timeout=5m",
                *(f"--set={name}={value}" for name, value in values.items()),
            ],
            timeout_seconds=330,
        )  # fmt: skip
