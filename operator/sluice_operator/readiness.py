"""Readiness gates: which pods may receive traffic. Pure.

Startup: a gate opens once its pod serves, which means that a real forward pass has run, and accepts requests.
It never closes again: a later fault of one pod is told by its readiness probe, and load is shed by the
servers. Off: pods are made without the gate; those that still have one are opened at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.values import Pod


@dataclass(frozen=True, slots=True)
class GateChange:
    """One transition of one pod's gate; the reason and message become the pod condition's."""

    pod_name: str
    pod_uid: str
    opens: bool
    reason: str
    message: str


def gate_changes(mode: Literal["Startup", "Off"], pods: Iterable[Pod]) -> list[GateChange]:
    """The transitions to write now; pods whose gate is as it should be are left out."""
    closed = (p for p in pods if p.has_gate and not p.gate_is_open and not p.is_being_deleted)
    if mode == "Off":
        return [_open(p, "GatesOff", "readiness.mode is Off") for p in closed]
    return [_open(p, "Serving", "the model has computed and requests are accepted") for p in closed if _serves(p)]


def _serves(pod: Pod) -> bool:
    return pod.report is not None and pod.report.health.phase == "serving" and pod.report.health.is_accepting


def _open(pod: Pod, reason: str, message: str) -> GateChange:
    return GateChange(pod.name, pod.uid, opens=True, reason=reason, message=message)
