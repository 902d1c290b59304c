"""Gets built images to where the cluster pulls them from."""

import json
from collections.abc import Mapping

from dev.cluster.containers import push
from dev.cluster.layout import IMAGE_PREFIX
from dev.console import DevError, run, step
from dev.images.build import OPERATOR, SERVER, Image, build
from dev.images.buildah import buildah
from dev.paths import STATE

RECORD = STATE / "images.json"


def build_and_push(images: Mapping[str, Image] | None = None) -> Mapping[str, str]:
    """Builds both images and pushes them to the local cluster; returns and records their references by short name."""
    references = {}
    for short, image in (images or {"server": SERVER, "operator": OPERATOR}).items():
        local = build(image)
        references[short] = f"{IMAGE_PREFIX}/{image.name}:{image.tag()}"
        with step(f"pushing {references[short]}"):
            push(local, references[short])
    return _record(references)


def build_and_push_to(registry: str) -> Mapping[str, str]:
    """The same for a registry of yours; buildah must be logged in there.

    Raises:
        DevError: The registry's name is empty, or a push failed.
    """
    if not registry:
        raise DevError(
            "IMAGE_REGISTRY is empty; expected where the cluster pulls from, for example registry.example.com/team"
        )
    references = {}
    for short, image in {"server": SERVER, "operator": OPERATOR}.items():
        local = build(image)
        references[short] = f"{registry.rstrip('/')}/{image.name}:{image.tag()}"
        with step(f"pushing {references[short]}"):
            run(buildah("push", "--quiet", local, f"docker://{references[short]}"), timeout_seconds=3600)
    return _record(references)


def _record(references: Mapping[str, str]) -> Mapping[str, str]:
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(references, indent=1))
    return references
