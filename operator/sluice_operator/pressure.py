"""How hard each serving pod is pressed, against the thresholds of the readiness gates. Pure.

A pod is over its limit while its queue needs longer than closeAbovePercent of the target drain time, or while
it refuses work. One poll says little: it counts as overloaded after `POLLS_TO_CLOSE` polls in a row. It is
relaxed again below openBelowPercent; between the two thresholds nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sluice_operator.spec import ServiceSpec
    from sluice_operator.values import Health, Pod, Report

POLLS_TO_CLOSE = 2
"""Polls in a row over the limit after which a pod is overloaded."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Drain times at which gates close and open."""

    close_above_milliseconds: float
    open_below_milliseconds: float

    @classmethod
    def of(cls, spec: ServiceSpec) -> Thresholds:
        """The percentages of the spec, applied to its target drain time."""
        target = spec.scaling.target_drain_milliseconds / 100
        return cls(spec.readiness.close_above_percent * target, spec.readiness.open_below_percent * target)


@dataclass(frozen=True, slots=True)
class Pressure:
    """One serving pod that has answered lately."""

    pod: Pod
    health: Health
    polls_over: int
    """Polls in a row over the limit, up to the last one."""
    limits: Thresholds

    @property
    def is_overloaded(self) -> bool:
        """Over its limit for long enough to act on it."""
        return self.polls_over >= POLLS_TO_CLOSE

    @property
    def is_relaxed(self) -> bool:
        """Accepts work, and its queue is known to be short."""
        drain = _drain(self.health)
        return self.health.is_accepting and drain is not None and drain < self.limits.open_below_milliseconds

    @property
    def severity(self) -> tuple[bool, float, str]:
        """Orders pods, the worst last: those that refuse, then by drain time; the uid makes the order total."""
        drain = _drain(self.health)
        return (not self.health.is_accepting, math.inf if drain is None else drain, self.pod.uid)

    @property
    def in_words(self) -> str:
        """What the pod says of its queue, with its numbers."""
        drain = _drain(self.health)
        queue = "its drain time is unknown" if drain is None else f"its queue needs {drain:.0f} ms"
        return queue if self.health.is_accepting else f"it refuses work, {queue}"


class PressureWindow:
    """Counts polls in a row over the limit, per pod; one per service.

    A pod that is silent for too long, serves no more or has a new boot_id starts anew; a single missed poll
    neither counts nor starts anew.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Report, int]] = {}

    def observe(self, pods: Iterable[Pod], limits: Thresholds) -> dict[str, int]:
        """Takes in what the pods said last; an answer that was taken in already counts once."""
        reports = {p.uid: p.report for p in pods if p.report is not None and p.report.health.phase == "serving"}
        self._seen = {uid: (report, self._count(uid, report, limits)) for uid, report in reports.items()}
        return {uid: polls for uid, (_, polls) in self._seen.items()}

    def _count(self, uid: str, report: Report, limits: Thresholds) -> int:
        if not _is_over(report.health, limits):
            return 0
        before, polls = self._seen.get(uid, (None, 0))
        if before is None or before.health.boot_id != report.health.boot_id:
            return 1
        return max(1, polls) if before.received_at == report.received_at else polls + 1


def of_serving(pods: Iterable[Pod], polls_over: Mapping[str, int], limits: Thresholds) -> list[Pressure]:
    """The pressure on every pod that serves and has answered lately, the least pressed first."""
    serving = (
        Pressure(p, p.report.health, polls_over.get(p.uid, 0), limits)
        for p in pods
        if p.report is not None and p.is_serving
    )
    return sorted(serving, key=lambda p: p.severity)


def _is_over(health: Health, limits: Thresholds) -> bool:
    drain = _drain(health)
    return not health.is_accepting or (drain is not None and drain > limits.close_above_milliseconds)


def _drain(health: Health) -> float | None:
    """The drain time; nothing queued needs no estimate to be drained at once."""
    return 0.0 if health.drain_milliseconds is None and health.queued_tokens == 0 else health.drain_milliseconds
