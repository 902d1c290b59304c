"""One EmbeddingService's loop: observe, decide, act; woken by changes and by its poll, whichever comes first.

Level-triggered: a round looks at everything as it is, so a lost or repeated wake-up costs nothing. A round
that fails is logged, counted and repeated with a growing delay.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sluice_operator import drift, manifests, metrics, observe, plan, readiness, saturation, spec, status
from sluice_operator.kube import KubeError
from sluice_operator.load import LoadWindow
from sluice_operator.pressure import PressureWindow, Thresholds
from sluice_operator.values import Child, Observation, Report

if TYPE_CHECKING:
    from sluice_operator.act import Actor, Outcome
    from sluice_operator.drift import Applied, ChildKey
    from sluice_operator.health_client import HealthClient
    from sluice_operator.kube import Kube
    from sluice_operator.load import Load
    from sluice_operator.settings import Settings
    from sluice_operator.spec import EmbeddingService
    from sluice_operator.store import ServiceKey, Store
    from sluice_operator.values import Pod, Trouble

log = logging.getLogger(__name__)

Json = dict[str, Any]

_CHILD_KINDS = ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")
_LEAST_PAUSE_SECONDS = 0.1
"""Changes that come together are looked at together."""
_RECHECK_SECONDS = 30.0
"""How often an object that stands in the way, or that was refused, is looked at again."""
_MOST_BACKOFF_SECONDS = 60.0
_MOST_API_BACKOFF_SECONDS = 5.0
"""The API server comes back for all services at once, and pods wait for their gates then."""


class Reconciler:
    """The state and the loop of one service."""

    def __init__(
        self,
        key: ServiceKey,
        *,
        settings: Settings,
        store: Store,
        kube: Kube,
        health: HealthClient,
        actor: Actor,
    ) -> None:
        self.key = key
        self._settings = settings
        self._store = store
        self._kube = kube
        self._health = health
        self._actor = actor
        self._woken = asyncio.Event()
        self._uid: str | None = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        """Forgets everything about a service of the same name that is gone."""
        self._reports: dict[str, Report] = {}
        self._poll_due: float | None = None
        self._heard_at = float("-inf")
        self._ask_again_at = float("inf")
        self._load_window = LoadWindow()
        self._load: Load | None = None
        self._pressure = PressureWindow()
        self._applied: dict[ChildKey, Applied] = {}
        self._foreign: dict[ChildKey, tuple[float, Child | None]] = {}
        self._served: dict[str, tuple[float, bool]] = {}
        self._trouble: Trouble | None = None
        self._refused_at = float("-inf")
        self._generation: int | None = None
        self._memory = plan.Memory()
        self._status_written_at = float("-inf")

    def wake(self) -> None:
        """Something about the service changed."""
        self._woken.set()

    async def run(self) -> None:
        """Runs until the service is gone, or until cancelled."""
        failures = 0
        while True:
            started = time.monotonic()
            self._woken.clear()
            try:
                goes_on = await self.round()
            except KubeError as error:
                failures += 1
                metrics.RECONCILES.labels(outcome="unavailable").inc()
                log.warning("a round was cut short, number %d in a row: %s", failures, error, extra=self._about())
                longest = _MOST_BACKOFF_SECONDS if error.is_refusal else _MOST_API_BACKOFF_SECONDS
                await asyncio.sleep(max(_backoff(failures, longest), error.retry_after_seconds))
                continue
            except Exception:
                failures += 1
                metrics.RECONCILES.labels(outcome="error").inc()
                log.exception("a round failed, number %d in a row", failures, extra=self._about())
                await asyncio.sleep(_backoff(failures, _MOST_BACKOFF_SECONDS))
                continue
            failures = 0
            metrics.RECONCILES.labels(outcome="ok").inc()
            metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
            if not goes_on:
                return
            await self._rest()

    async def _rest(self) -> None:
        """Until the next poll, or until woken."""
        due = min(self._ask_again_at, self._poll_due or float("-inf"))
        await asyncio.sleep(_LEAST_PAUSE_SECONDS)
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._woken.wait()
        except TimeoutError:
            return

    async def round(self) -> bool:
        """One round; False when the service is gone or going, and there is nothing left to do for it."""
        resource = self._store.service(self.key)
        if resource is None:
            await self._let_go()
            return False
        service = spec.parse(resource)
        if service.uid != self._uid:
            self._uid = service.uid
            self._start_afresh()
        if service.generation != self._generation:
            self._generation, self._trouble, self._refused_at = service.generation, None, float("-inf")
        if service.is_being_deleted:
            await self._let_go()
            return True
        now = time.monotonic()
        observation = await self._observe(resource, now)
        observation = replace(observation, missing_kinds=await self._missing_kinds(service, now))
        children = await self._children(service, observation)
        decision = plan.decide(
            service,
            observation,
            load=self._load_at(observation),
            polls_over=self._pressure.observe(observation.live_pods, Thresholds.of(service.spec)),
            children=children,
            applied=self._applied,
            memory=replace(
                self._memory,
                seconds_since_status=now - self._status_written_at,
                may_apply=now - self._refused_at >= _RECHECK_SECONDS,
            ),
            default_image=self._settings.server_image,
        )
        self._memory = replace(self._memory, scaling=decision.scaling)
        outcome = await self._actor.carry_out(service, decision)
        self._take_in(outcome, now)
        self._export(service, decision.facts)
        return True

    async def _let_go(self) -> None:
        """Opens every gate: pods that are kept when their service is deleted have nobody else to open it."""
        pods = observe.pods(self._store.owned(self.key, "Pod"))
        await self._actor.open_gates(self.key, readiness.open_all(pods))

    async def _observe(self, resource: Json, now: float) -> Observation:
        pods = observe.pods(self._store.owned(self.key, "Pod"))
        await self._poll(pods, now)
        deployment = next(iter(self._store.owned(self.key, "Deployment")), None)
        return Observation(
            pods=tuple(replace(pod, report=self._fresh(pod, now)) for pod in pods),
            rollout=None if deployment is None else observe.rollout(deployment),
            status=resource.get("status", {}),
            now=now,
            wall_time=datetime.now(UTC),
            apply_trouble=self._trouble,
        )

    async def _poll(self, pods: tuple[Pod, ...], now: float) -> None:
        """Asks all pods when a poll is due, else only those that have never answered."""
        is_due = self._poll_due is None or now >= self._poll_due
        if is_due:
            self._poll_due = _next_poll(self._poll_due, now, self._settings.poll_interval_seconds)
        asked = pods if is_due else tuple(p for p in pods if p.uid not in self._reports and not p.is_ready)
        answers = await self._health.poll(asked)
        # Some answered at once and some at last. Dated by the begin, counters of a slow poll would run ahead of time.
        heard_at = (now + time.monotonic()) / 2
        if is_due:
            self._heard_at, self._load = heard_at, None
        for uid, health in answers.items():
            self._reports[uid] = Report(health, received_at=heard_at)
        alive = {p.uid for p in pods}
        self._reports = {uid: report for uid, report in self._reports.items() if uid in alive}

    def _fresh(self, pod: Pod, now: float) -> Report | None:
        report = self._reports.get(pod.uid)
        if report is None or now - report.received_at > self._settings.stale_after_seconds:
            return None
        return report

    def _load_at(self, observation: Observation) -> Load:
        """The load, measured once per poll: other rounds in between reuse it."""
        if self._load is None:
            self._load_window.recall(status.capacity(observation.status))
            self._load = self._load_window.observe(observation.live_pods, self._heard_at)
        return self._load

    async def _children(self, service: EmbeddingService, observation: Observation) -> dict[ChildKey, Child]:
        """The live children, and whatever else stands where they should be."""
        bodies = {drift.key_of(b): b for b in self._store.owned(self.key, *_CHILD_KINDS)}
        known = set(manifests.child_names(service.name))
        found = {k: observe.child(b, service.name, service.uid) for k, b in bodies.items() if k in known}
        asked = manifests.wanted_names(service)
        for key in known - found.keys():
            checked_at, child = self._foreign.get(key, (float("-inf"), None))
            # What the spec does not ask for is looked for once, and watched if it is ours and can be watched.
            is_due = observation.now - checked_at > _RECHECK_SECONDS and (key in asked or key not in self._foreign)
            if is_due:
                body = await self._look_up(service, key)
                child = None if body is None else observe.child(body, service.name, service.uid)
                self._foreign[key] = (observation.now, child)
            if child is not None:
                found[key] = child
        return found

    async def _look_up(self, service: EmbeddingService, key: ChildKey) -> Json | None:
        try:
            return await self._kube.get(key[0], service.namespace, key[1])
        except KubeError as error:
            # An operator installed without the right to such objects has made none.
            if key[0] in manifests.UNWATCHED and error.is_refusal:
                return None
            raise

    async def _missing_kinds(self, service: EmbeddingService, now: float) -> frozenset[str]:
        """Kinds that the spec asks for and a cluster may not have, looked for now and then."""
        for kind in manifests.optional_kinds(service.spec):
            checked_at, _ = self._served.get(kind, (float("-inf"), False))
            if now - checked_at > _RECHECK_SECONDS:
                self._served[kind] = (now, await self._kube.serves(kind))
        return frozenset(k for k in manifests.optional_kinds(service.spec) if not self._served[k][1])

    def _take_in(self, outcome: Outcome, now: float) -> None:
        self._applied.update(outcome.applied)
        for key in {*outcome.applied, *outcome.deleted}:
            self._foreign.pop(key, None)
        for key in outcome.deleted:
            self._applied.pop(key, None)
        self._ask_again_at = float("inf") if outcome.ask_again_seconds is None else now + outcome.ask_again_seconds
        if outcome.wrote_status:
            self._status_written_at = now
        if outcome.did_apply:
            self._trouble = outcome.trouble
            self.wake()
        if outcome.trouble is not None:
            self._refused_at = now

    def _export(self, service: EmbeddingService, said: Json) -> None:
        names = {"namespace": service.namespace, "service": service.name}
        load = said.get("load", {})
        desired = said.get("desiredReplicas", 0)
        advised = said.get("scaling", {}).get("recommendedReplicas", desired)
        metrics.DESIRED_REPLICAS.labels(**names).set(desired)
        metrics.RECOMMENDED_REPLICAS.labels(**names).set(advised)
        metrics.READY_REPLICAS.labels(**names).set(said.get("readyReplicas", 0))
        metrics.CLOSED_GATES.labels(**names).set(said.get("gates", {}).get("closed", 0))
        metrics.SATURATED.labels(**names).set(saturation.Before.of(said).holds)
        metrics.DRAIN_SECONDS.labels(**names).set(load.get("drainMilliseconds", float("nan")) / 1000)
        metrics.QUEUED_TOKENS.labels(**names).set(load.get("queuedTokens", float("nan")))
        metrics.OFFERED_RATE.labels(**names).set(load.get("offeredRate", float("nan")))

    def _about(self) -> Json:
        return {"namespace": self.key[0], "service": self.key[1]}


def _next_poll(due: float | None, now: float, interval: float) -> float:
    """Keeps the rhythm, however late this poll is; services that begin together drift apart at once."""
    if due is None:
        return now + interval * (0.5 + random.random())  # noqa: S311 - spreads polls, keeps no secret
    metrics.POLL_DELAY.observe(now - due)
    return max(due + interval, now + interval / 2)


def _backoff(failures: int, most_seconds: float) -> float:
    """0.5 s, doubling up to a bound, with jitter so that services do not come back together."""
    longest: float = min(most_seconds, 0.5 * 2.0 ** min(failures - 1, 10))
    return longest * (0.5 + random.random() / 2)  # noqa: S311 - spreads retries, keeps no secret
