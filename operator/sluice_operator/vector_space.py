"""Whether all pods of a service compute the same vectors. Pure.

Vectors of two models look alike and mean nothing to each other: one pod with other weights, say because a
branch on the hub moved, quietly spoils an index. So the fingerprint of the first pod that serves is kept in
status.model, together with the digest of what spec.model declared then. A pod of the same declaration with
another fingerprint is a stranger: it gets no traffic, even where no other pod is left, as an error is seen and a
wrong vector is not. Another declaration is a decision of the spec's author, and is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sluice_operator.pod_template import declaration
from sluice_operator.readiness import GateChange
from sluice_operator.reasons import EventReason, GateReason, Reason
from sluice_operator.status import Event
from sluice_operator.values import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sluice_operator.spec import ModelSpec
    from sluice_operator.values import Pod

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """What the pods compute, and who does not belong."""

    model: Json
    """For status.model; empty where no pod has ever said it."""
    strangers: frozenset[str]
    """Uids of pods that compute other vectors than the service's."""
    trouble: Trouble | None
    change: Event | None
    """Another model serves, as spec.model asks for."""

    def gate_changes(self, pods: Iterable[Pod]) -> list[GateChange]:
        """Takes strangers out of traffic; one whose gate was never opened just stays out."""
        words = "" if self.trouble is None else self.trouble.message
        return [
            GateChange(p.name, p.uid, False, GateReason.OTHER_VECTORS, words, EventReason.GATE_CLOSED)
            for p in pods
            if p.uid in self.strangers and p.has_gate and p.gate_is_open
        ]


def assess(spec: ModelSpec, before: Json, pods: Iterable[Pod]) -> VectorSpace:
    """Compares the pods' fingerprints.

    Args:
        spec: what the service declares.
        before: status.model as it was last written.
        pods: live pods of every version of the spec.
    """
    declared = declaration(spec)
    said = sorted(
        ((p, fingerprint) for p in pods if p.model_declaration == declared and (fingerprint := _fingerprint(p))),
        key=lambda pair: (not pair[0].gate_is_open, pair[0].name),
    )
    is_same = before.get("declaration") == declared
    ours = spec.fingerprint or (before.get("fingerprint") if is_same else None) or next((f for _, f in said), None)
    strangers = [(p, f) for p, f in said if not _are_same(f, ours)]
    example = next((p for p, f in said if _are_same(f, ours)), None)
    model = before if example is None else _model(example, declared, ours)
    return VectorSpace(
        model=model,
        strangers=frozenset(p.uid for p, _ in strangers),
        trouble=_trouble(spec, ours, strangers),
        change=_change(before.get("fingerprint"), model.get("fingerprint")),
    )


def _are_same(fingerprint: str, ours: str | None) -> bool:
    """Two digests joined by a dash, of which noise between machines may change one (the server's fingerprint.py)."""
    return ours is not None and any(a == b for a, b in zip(fingerprint.split("-"), ours.split("-"), strict=False))


def _fingerprint(pod: Pod) -> str | None:
    """Known once it has computed."""
    if pod.report is None or pod.report.health.phase not in {"serving", "draining"}:
        return None
    return pod.report.health.model_fingerprint


def _model(pod: Pod, declared: str, fingerprint: str | None) -> Json:
    """The fingerprint stays as it was first said, or noise would carry it on step by step."""
    assert pod.report is not None, "it has said its fingerprint"
    health = pod.report.health
    said = {
        "dimension": health.dimension,
        "revision": health.model_revision,
        "fingerprint": fingerprint,
        "declaration": declared,
    }
    return {name: value for name, value in said.items() if value is not None}


def _trouble(spec: ModelSpec, ours: str | None, strangers: Sequence[tuple[Pod, str]]) -> Trouble | None:
    if not strangers:
        return None
    theirs = strangers[0][1]
    although = (
        "spec.model.fingerprint asks for" if spec.fingerprint else "this service's are, and spec.model is the same"
    )
    return Trouble(
        Reason.FINGERPRINT_CHANGED,
        f"{len(strangers)} pods compute other vectors, of fingerprint {theirs} and not {ours} as {although}; they get "
        f"no traffic. Pin spec.model.revision to the earlier model, or accept these by setting "
        f"spec.model.fingerprint to {theirs}",
    )


def _change(before: str | None, after: str | None) -> Event | None:
    if before is None or before == after:
        return None
    return Event(
        EventReason.MODEL_CHANGED,
        f"pods compute other vectors now, as spec.model says: fingerprint {before} → {after}; "
        "an index of the earlier ones has to be computed anew",
    )
