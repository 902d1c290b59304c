"""What was observed, as values. None means unknown, which is never the same as zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sluice_operator.reasons import GateReason

if TYPE_CHECKING:
    from datetime import datetime

    from sluice_operator.reasons import Reason

GATE = "sluice.dev/accepting"
"""Type of the pod condition that is the readiness gate."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""Annotation of pods by which ReplicaSets choose those that go first."""
_NOT_FOR_LOAD = {GateReason.SERVING, GateReason.OTHER_VECTORS}
"""Reasons of a gate that no overload has moved."""


@dataclass(frozen=True, slots=True)
class Health:
    """One pod's /health document: the part that decisions use. See proto/health.schema.json."""

    boot_id: str
    phase: str
    phase_reason: str | None
    phase_step: int | None
    phase_steps: int | None
    is_accepting: bool
    status: str
    queued_tokens: int
    service_rate: float | None
    drain_milliseconds: float | None
    busy_fraction: float | None
    offered_tokens_total: int
    dimension: int | None
    model_revision: str | None
    model_fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """The last answer of a pod, and what became of the polls since."""

    health: Health
    received_at: float
    """Seconds on the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not serve, in the kubelet's, the scheduler's or the server's own words."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A live pod of the service, with the last thing it said."""

    name: str
    uid: str
    ip: str | None
    http_port: int
    is_running: bool
    is_being_deleted: bool
    is_ready: bool
    """It receives traffic: its containers are ready and its gate is open, as the kubelet has put together."""
    containers_ready: bool
    """Its probes answer well."""
    template_hash: str | None
    has_gate: bool
    gate_is_open: bool | None
    """None where the condition was never written."""
    trouble: Trouble | None
    gate_since: datetime | None = None
    """When the gate was last opened or closed."""
    gate_reason: str | None = None
    """A `GateReason`, or whatever someone else has written."""
    model_declaration: str | None = None
    """What its spec said about whose vectors these are; see `pod_template.declaration`."""
    unscheduled_since: datetime | None = None
    """Since when the scheduler finds no node for it."""
    requests: tuple[tuple[str, str], ...] = ()
    """What the scheduler sets aside for the server's container: resource and quantity."""
    deletion_cost: int | None = None
    """Its controller.kubernetes.io/pod-deletion-cost."""
    report: Report | None = None
    """None where the pod has not answered lately: not asked yet, silent, or speaking garbage."""

    @property
    def is_serving(self) -> bool:
        """Whether it says that it has loaded, computed and goes on to serve."""
        return self.report is not None and self.report.health.phase == "serving"

    @property
    def accepts(self) -> bool:
        """Whether it says that it takes work now."""
        return self.report is not None and self.report.health.is_accepting

    @property
    def is_gated(self) -> bool:
        """Able to serve, and out of traffic by its gate alone, or just back and the kubelet has yet to say so."""
        was_taken_out = self.gate_is_open is not None and self.gate_reason not in _NOT_FOR_LOAD
        return self.has_gate and was_taken_out and self.containers_ready and not self.is_ready


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the Deployment controller says."""

    is_current: bool
    """Whether the controller has seen the latest Deployment."""
    template_hash: str | None
    """The version of the spec that it rolls out."""
    requested_replicas: int
    replicas: int
    updated_replicas: int
    ready_replicas: int
    trouble: Trouble | None


@dataclass(frozen=True, slots=True)
class Child:
    """A live object that the service owns, or that stands where its own should be."""

    kind: str
    name: str
    is_ours: bool
    owner: str
    """Whose it is, in words for a message."""
    body: dict[str, Any] = field(hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that a decision may use about one service."""

    pods: tuple[Pod, ...]
    rollout: Rollout | None
    """None where no Deployment exists."""
    status: dict[str, Any] = field(hash=False)
    """The status as it was last written."""
    now: float
    """Seconds on the monotonic clock."""
    wall_time: datetime
    apply_trouble: Trouble | None = None
    """What the API server said when a child was last applied."""
    missing_kinds: frozenset[str] = frozenset()
    """Kinds of children that the spec asks for and this cluster does not have."""

    @property
    def live_pods(self) -> tuple[Pod, ...]:
        """Pods that are not being deleted."""
        return tuple(p for p in self.pods if not p.is_being_deleted)
