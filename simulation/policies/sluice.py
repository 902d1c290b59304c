"""Sluice's operator: its own windows and its own decision, fed with what simulated pods say.

Everything between an answer of /health and a plan is the operator's code. What stands in for the rest here is what
`reconciler` and `act` do: keep the last answers, and carry out the plan.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from sluice_operator import drift, plan, spec
from sluice_operator.load import LoadWindow
from sluice_operator.pressure import PressureWindow, Thresholds
from sluice_operator.values import Child, Health, Observation, Pod, Report, Rollout

from simulation import cluster as model
from simulation.pods import DRAIN_LIMIT_SECONDS
from simulation.scenarios import MAX_PODS, MIN_PODS, POLL_SECONDS

if TYPE_CHECKING:
    from sluice_operator.drift import Applied, ChildKey

Json = dict[str, Any]

STALE_AFTER_SECONDS = 6
_ESTIMATE_ERROR = 0.03
"""Relative standard deviation of the pods' estimates of their own rate."""
_CRD = Path(__file__).parents[2] / "crds" / "embeddingservices.sluice.dev.yaml"


class Sluice:
    """The operator's loop over one service."""

    interval_seconds = POLL_SECONDS
    has_gates = True

    def __init__(self, *, stabilization_seconds: int) -> None:
        self._service = _service(stabilization_seconds)
        self._load = LoadWindow()
        self._pressure = PressureWindow()
        self._reports: dict[str, Report] = {}
        self._children: dict[ChildKey, Child] = {}
        self._applied: dict[ChildKey, Applied] = {}
        self._memory = plan.Memory()
        self._status: Json = {}
        self._status_at = float("-inf")
        self._errors = np.random.default_rng(23)
        self.messages: list[tuple[int, str]] = []
        """What the operator's Events said, and when."""
        self.closed: Counter[int] = Counter()
        """How often each pod's gate was closed."""

    def decide(self, cluster: model.Cluster) -> None:
        """One round: observe, decide, act."""
        now = float(cluster.now)
        observation = self._observe(cluster)
        decision = plan.decide(
            self._service,
            observation,
            load=self._load.observe(observation.live_pods, now),
            polls_over=self._pressure.observe(observation.live_pods, Thresholds.of(self._service.spec)),
            children=self._children,
            applied=self._applied,
            memory=replace(self._memory, seconds_since_status=now - self._status_at),
            default_image=None,
        )
        self._memory = replace(self._memory, scaling=decision.scaling)
        self._carry_out(decision, cluster)

    def _observe(self, cluster: model.Cluster) -> Observation:
        now = float(cluster.now)
        answers = self._ask(cluster)
        self._reports = {str(p.uid): r for p in cluster.live if (r := self._reports.get(str(p.uid))) is not None}
        self._reports.update({uid: Report(health, now) for uid, health in answers.items()})
        pods = tuple(_pod(cluster, p, self._fresh(str(p.uid), now)) for p in cluster.live)
        ready = sum(p.is_ready for p in pods)
        return Observation(
            pods=pods,
            rollout=Rollout(True, None, cluster.requested, len(pods), len(pods), ready, None),
            status=self._status,
            now=now,
            wall_time=cluster.wall_time,
        )

    def _ask(self, cluster: model.Cluster) -> dict[str, Health]:
        index = {uid: i for i, uid in enumerate(cluster.pods.uids)}
        busy = cluster.pods.busy_fraction(10)
        errors = 1 + _ESTIMATE_ERROR * self._errors.standard_normal(len(busy))
        answers = {}
        for pod, answers_now in zip(cluster.live, cluster.hears(), strict=True):
            if not answers_now or not cluster.is_running(pod):
                continue
            i = index.get(pod.uid)
            serving = None if i is None else (cluster.pods, i, float(busy[i]), float(errors[i]))
            answers[str(pod.uid)] = _WARMING if serving is None else _health(*serving)
        return answers

    def _fresh(self, uid: str, now: float) -> Report | None:
        report = self._reports.get(uid)
        return None if report is None or now - report.received_at > STALE_AFTER_SECONDS else report

    def _carry_out(self, decision: plan.Plan, cluster: model.Cluster) -> None:
        self.closed.update(int(g.pod_uid) for g in decision.gates if not g.opens)
        cluster.set_gates(model.Gate(int(g.pod_uid), g.opens, str(g.reason)) for g in decision.gates)
        for change in decision.apply:
            name = change.key[1]
            self._children[change.key] = Child(change.key[0], name, is_ours=True, owner="", body=change.manifest)
            self._applied[change.key] = drift.record(change.manifest, change.manifest)
            if change.key[0] == "Deployment" and change.manifest["spec"]["replicas"] != cluster.requested:
                cluster.scale(change.manifest["spec"]["replicas"])
        self.messages += [(cluster.now, event.note) for event in decision.events]
        if decision.status is not None:
            self._status, self._status_at = decision.status, float(cluster.now)


def _pod(cluster: model.Cluster, pod: model.Pod, report: Report | None) -> Pod:
    serves = cluster.serves(pod)
    return Pod(
        name=f"pod-{pod.uid:05}",
        uid=str(pod.uid),
        ip="10.0.0.1",
        http_port=8001,
        is_running=cluster.is_running(pod),
        is_being_deleted=False,
        is_ready=pod.is_ready,
        containers_ready=serves,
        template_hash=None,
        has_gate=True,
        gate_is_open=pod.gate_is_open,
        trouble=None,
        gate_since=pod.gate_since,
        gate_reason=pod.gate_reason,
        report=report,
    )


_WARMING = Health(
    boot_id="1",
    phase="warming",
    phase_reason=None,
    phase_step=1,
    phase_steps=2,
    is_accepting=False,
    status="healthy",
    queued_tokens=0,
    service_rate=None,
    drain_milliseconds=None,
    busy_fraction=None,
    offered_tokens_total=0,
    dimension=None,
    model_revision=None,
    model_fingerprint=None,
)


def _health(pods: Any, i: int, busy: float, error: float) -> Health:
    rate, queued = float(pods.rate[i]) * error, float(pods.queued[i])
    is_accepting = queued < float(pods.rate[i]) * DRAIN_LIMIT_SECONDS * _FULL
    return replace(
        _WARMING,
        phase="serving",
        phase_step=None,
        phase_steps=None,
        is_accepting=is_accepting,
        status="healthy" if is_accepting else "overloaded",
        queued_tokens=round(queued),
        service_rate=rate,
        drain_milliseconds=1000 * queued / rate,
        busy_fraction=min(1.0, busy),
        offered_tokens_total=round(float(pods.offered[i])),
        dimension=384,
    )


_FULL = 0.99
"""A queue this full refuses the next request."""


@cache
def _service(stabilization_seconds: int) -> spec.EmbeddingService:
    """An EmbeddingService with the CRD's defaults, as the API server would fill them in."""
    crd = yaml.safe_load(_CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    scaling = {
        "minReplicas": MIN_PODS,
        "maxReplicas": MAX_PODS,
        "scaleDownStabilizationSeconds": stabilization_seconds,
    }
    wanted = {"model": {"uri": "file:///models/m"}, "server": {"image": "sluice-server"}, "scaling": scaling}
    return spec.parse(
        {
            "metadata": {"name": "simulated", "namespace": "default", "uid": "1", "generation": 1},
            "spec": _defaulted(wanted, schema),
        }
    )


def _defaulted(value: Any, schema: Json) -> Any:
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = copy.deepcopy(part["default"])
            if name in value:
                value[name] = _defaulted(value[name], part)
    return value
