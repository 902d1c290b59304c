"""Which children must be applied, and why. Pure.

Server-side apply is idempotent, but it is a request; a steady service causes none. After each apply the
digest of what was asked for and the digest of what the API server made of it are remembered. As long as both
stay the same, nothing is sent. This needs no knowledge of the API server's defaults, and sees every change by
anyone else. A restarted operator remembers nothing and applies everything once, which changes nothing that is
right.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sluice_operator.values import Child

Json = dict[str, Any]
ChildKey = tuple[str, str]
"""Kind and name."""

_CONTROLLERS_OWN = ("deployment.kubernetes.io/", "kubectl.kubernetes.io/")
"""Annotations that others keep on our children."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was asked for and what became of it."""

    wanted: str
    live: str


@dataclass(frozen=True, slots=True)
class Apply:
    """A child to apply."""

    manifest: Json
    cause: Literal["missing", "spec", "drift", "restart"]

    @property
    def key(self) -> ChildKey:
        """Kind and name."""
        return key_of(self.manifest)


def key_of(body: Json) -> ChildKey:
    """Kind and name of an object."""
    return (body["kind"], body["metadata"]["name"])


def to_apply(
    wanted: Iterable[Json], live: Mapping[ChildKey, Child], applied: Mapping[ChildKey, Applied]
) -> list[Apply]:
    """The children to apply now, in the given order. Those that belong to someone else are not among them."""
    found = []
    for manifest in wanted:
        key = key_of(manifest)
        child, memory = live.get(key), applied.get(key)
        if child is not None and not child.is_ours:
            continue
        if child is None:
            found.append(Apply(manifest, "missing" if memory is None else "drift"))
        elif memory is None:
            found.append(Apply(manifest, "restart"))
        elif memory.wanted != digest(manifest):
            found.append(Apply(manifest, "spec"))
        elif memory.live != live_digest(child.body):
            found.append(Apply(manifest, "drift"))
    return found


def record(manifest: Json, result: Json) -> Applied:
    """What to remember of a successful apply."""
    return Applied(wanted=digest(manifest), live=live_digest(result))


def digest(value: Any) -> str:
    """A digest of JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def live_digest(body: Json) -> str:
    """A digest of the parts of a live object that an apply can change."""
    metadata = body["metadata"]
    annotations = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if not key.startswith(_CONTROLLERS_OWN)
    }
    return digest([metadata.get("labels"), annotations, metadata.get("ownerReferences"), body.get("spec")])
