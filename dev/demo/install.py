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
        values = []
        for name in ("operator", "server"):
            repository, _, tag = target.images[name].rpartition(":")
            values += [f"--set=images.{name}.repository={repository}", f"--set=images.{name}.tag={tag}"]
        run(
            [
                *target.helm, "upgrade", "--install", RELEASE, ROOT / "charts" / "sluice",
                f"--namespace={NAMESPACE}", "--create-namespace", "--wait", "--timeout=5m", *values,
            ],
            timeout_seconds=330,
        )  # fmt: skip
