"""What keeps the operator itself from making a service what it should be. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice_operator import drift
from sluice_operator.reasons import Reason
from sluice_operator.values import Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sluice_operator.drift import ChildKey
    from sluice_operator.values import Child, Observation

Json = dict[str, Any]


def blocking(observation: Observation, wanted: list[Json], children: Mapping[ChildKey, Child]) -> Trouble | None:
    """What keeps the service from being served as specified."""
    if not wanted:
        return Trouble(
            Reason.NO_SERVER_IMAGE,
            "no image: set spec.server.image, or install the operator with serverImage",
        )
    for manifest in wanted:
        child = children.get(drift.key_of(manifest))
        if child is not None and not child.is_ours:
            return Trouble(
                Reason.NAME_CONFLICT,
                f"{child.kind} {child.name} belongs to {child.owner}: "
                "rename this EmbeddingService or remove that object",
            )
    return observation.apply_trouble


def beside_the_pods(observation: Observation) -> Trouble | None:
    """What the spec asks for and this cluster does not have; nobody is served worse for it."""
    if not observation.missing_kinds:
        return None
    kinds = ", ".join(sorted(observation.missing_kinds))
    return Trouble(
        Reason.SERVICE_MONITOR_UNAVAILABLE,
        f"this cluster has no API for {kinds}: install the Prometheus operator, or set "
        "spec.monitoring.serviceMonitor.enabled to false",
    )
