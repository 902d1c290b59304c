"""Gets built images to where the cluster pulls them from."""

import json
from collections.abc import Callable, Mapping

from dev.cluster.containers import push
from dev.cluster.layout import IMAGE_PREFIX
from dev.console import DevError, run, step
from dev.images.build import OPERATOR, SERVER, build
from dev.images.buildah import buildah
from dev.paths import STATE

RECORD = STATE / "images.json"


def build_and_push() -> Mapping[str, str]:
    """Builds both images and pushes them to the local cluster; returns and records their references by short name."""
    return _build_and_push(IMAGE_PREFIX, push)


def build_and_push_to(registry: str) -> Mapping[str, str]:
    """The same for a registry of yours; buildah must be logged in there.

    Raises:
        DevError: The registry's name is empty, or a push failed.
    """
    if not registry:
        raise DevError(
            "IMAGE_REGISTRY is empty; expected where the cluster pulls from, for example registry.example.com/team"
        )
    return _build_and_push(registry.rstrip("/"), _push_to_registry)


def _build_and_push(prefix: str, push_one: Callable[[str, str], None]) -> Mapping[str, str]:
    references = {}
    for short, image in {"server": SERVER, "operator": OPERATOR}.items():
        local = build(image)
        references[short] = f"{prefix}/{image.name}:{image.tag()}"
        with step(f"pushing {references[short]}"):
            push_one(local, references[short])
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(references, indent=1))
    return references


def _push_to_registry(local: str, reference: str) -> None:
    run(buildah("push", "--quiet", local, f"docker://{reference}"), timeout_seconds=3600)
