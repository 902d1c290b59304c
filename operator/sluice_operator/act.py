"""Carries out a plan: the only writer to Kubernetes. What a write returns goes to the store."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sluice_operator import drift, metrics
from sluice_operator.kube import FIELD_MANAGER, KubeError
from sluice_operator.manifests import UNWATCHED
from sluice_operator.ownership import API_VERSION, KIND
from sluice_operator.pace import PACED, Pace
from sluice_operator.reasons import Reason
from sluice_operator.status import Event
from sluice_operator.values import DELETION_COST, GATE, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sluice_operator.deletion_cost import CostChange
    from sluice_operator.drift import Applied, Apply, ChildKey
    from sluice_operator.kube import Kube
    from sluice_operator.plan import Plan
    from sluice_operator.readiness import GateChange
    from sluice_operator.spec import EmbeddingService
    from sluice_operator.store import ServiceKey, Store

log = logging.getLogger(__name__)

Json = dict[str, Any]
_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_MAX_NOTE = 1024


@dataclass(slots=True)
class Outcome:
    """What came of a plan."""

    applied: dict[ChildKey, Applied] = field(default_factory=dict)
    deleted: set[ChildKey] = field(default_factory=set)
    trouble: Trouble | None = None
    wrote_status: bool = False
    did_apply: bool = False
    ask_again_seconds: float | None = None
    """When gates that wait for their turn should be decided anew; None where none does."""


class Actor:
    """Writes for one operator instance."""

    def __init__(self, kube: Kube, store: Store, *, instance: str, gate_writes_per_second: float) -> None:
        self._kube = kube
        self._store = store
        self._instance = instance
        self._pace = Pace.of(gate_writes_per_second, time.monotonic())
        self._waiting: set[ServiceKey] = set()

    async def carry_out(self, service: EmbeddingService, plan: Plan) -> Outcome:
        """Gates first, as traffic waits for them; events last, as they tell what was done.

        Raises:
            KubeError: where the API server fails; what it refuses for good is in the outcome instead.
        """
        outcome = Outcome()
        await self._move_gates(service, plan.gates, outcome)
        for cost in plan.costs:
            await self._set_cost(service, cost)
        for apply in plan.apply:
            outcome.did_apply = True
            outcome.trouble = outcome.trouble or await self._apply(apply, outcome)
        for child in plan.delete:
            uid = child.body["metadata"]["uid"]
            await self._kube.delete(child.kind, service.namespace, child.name, uid)
            outcome.deleted.add((child.kind, child.name))
            log.info("deleted what the spec no longer asks for", extra=_about(service, child=child.name))
        if plan.status is not None:
            body = await self._kube.apply_status(service.name, service.namespace, service.uid, plan.status)
            self._store.put(body)
            outcome.wrote_status = True
        for event in plan.events:
            await self._tell(service, event)
        return outcome

    async def _move_gates(self, service: EmbeddingService, changes: Iterable[GateChange], outcome: Outcome) -> None:
        """As many as the pace allows, in their order; the others are decided anew, so none of them is kept."""
        waiting = 0
        for change in changes:
            if change.reason in PACED and (waiting or not self._has_turn()):
                waiting += 1
            elif await self._set_gate(service.key, change) and change.event is not None:
                note = f"pod {change.pod_name}: {change.message}"
                await self._tell(service, Event(change.event, note, is_warning=not change.opens))
        self._waiting.discard(service.key)
        if waiting:
            self._waiting.add(service.key)
            outcome.ask_again_seconds = self._pace.pause_seconds(len(self._waiting))
        metrics.GATES_WAITING.labels(namespace=service.namespace, service=service.name).set(waiting)

    def _has_turn(self) -> bool:
        self._pace, may = self._pace.take(time.monotonic())
        return may

    async def _apply(self, apply: Apply, outcome: Outcome) -> Trouble | None:
        kind, name = apply.key
        try:
            result = await self._kube.apply(apply.manifest)
        except KubeError as error:
            if not error.is_refusal:
                raise
            log.warning("the API server refuses %s %s: %s", kind, name, error)
            return Trouble(Reason.APPLY_FAILED, f"the API server refuses {kind} {name}: {error.message}")
        outcome.applied[apply.key] = drift.record(apply.manifest, result)
        if kind not in UNWATCHED:
            self._store.put(result)
        if apply.cause != "restart":
            log.info("applied %s %s: %s", kind, name, apply.cause)
        return None

    async def _set_cost(self, service: EmbeddingService, change: CostChange) -> None:
        """Marks a pod to go first; one that is gone already needs no mark."""
        value = None if change.cost is None else str(change.cost)
        body = await self._kube.annotate_pod(service.namespace, change.pod_name, change.pod_uid, DELETION_COST, value)
        if body is not None:
            self._store.put(body)

    async def open_gates(self, key: ServiceKey, changes: Iterable[GateChange]) -> None:
        """Opens gates of pods whose service is gone.

        Raises:
            KubeError: where the API server fails; a pod that is gone too is as good.
        """
        self._waiting.discard(key)
        for change in changes:
            await self._set_gate(key, change)

    async def _set_gate(self, key: ServiceKey, change: GateChange) -> bool:
        """False where that very pod is gone."""
        namespace, name = key
        condition = {
            "type": GATE,
            "status": "True" if change.opens else "False",
            "reason": str(change.reason),
            "message": change.message,
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        body = await self._kube.patch_pod_condition(namespace, change.pod_name, change.pod_uid, condition)
        if body is None:
            return False
        self._store.put(body)
        verb = "opened" if change.opens else "closed"
        about = {"namespace": namespace, "service": name, "reason": str(change.reason)}
        log.info("%s the gate of pod %s: %s", verb, change.pod_name, change.message, extra=about)
        return True

    async def _tell(self, service: EmbeddingService, event: Event) -> None:
        """An Event on the service. It only informs: a failure is logged and not repeated."""
        note = event.note if len(event.note) <= _MAX_NOTE else event.note[: _MAX_NOTE - 1] + "…"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{service.name}-", "namespace": service.namespace},
            "eventTime": datetime.now(UTC).strftime(_MICRO_TIME),
            "reportingController": f"sluice.dev/{FIELD_MANAGER}",
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": str(event.reason),
            "type": "Warning" if event.is_warning else "Normal",
            "note": note,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": service.namespace,
                "name": service.name,
                "uid": service.uid,
            },
        }
        log.info("%s: %s", event.reason, note, extra=_about(service))
        try:
            await self._kube.create(body)
        except KubeError as error:
            log.warning("could not post the event %s: %s", event.reason, error, extra=_about(service))


def _about(service: EmbeddingService, **more: Any) -> Json:
    return {"namespace": service.namespace, "service": service.name, **more}
