"""How many pods a rollout may add first, and how many it may take away first. Pure.

A new pod before an old one goes: nothing is lost while pods warm, which takes minutes. Where no node has room
for one more, that would wait for ever. Once pods of the new spec have waited long enough for room that a pod
of the old spec would leave behind, old ones go first until the rollout is over. A new pod that would not fit in
an old one's place either replaces nothing: the old ones keep serving.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sluice_operator import quantity
from sluice_operator.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sluice_operator.values import Pod

PATIENCE = timedelta(seconds=30)
"""How long pods wait for room before old ones go first."""
SURGE_SHARE = 4
"""A quarter of the pods, one at least, is added first."""
REPLACE_SHARE = 10
"""A tenth of the pods, one at least, goes first where there is no room."""
_WANTS_ROOM = ("Insufficient", "Too many pods", "anti-affinity", "topology spread", "free ports")
"""What the scheduler says of a pod for which a leaving one may make room."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Strategy:
    """The numbers of a Deployment's rolling update."""

    max_surge: int
    max_unavailable: int

    @property
    def replaces(self) -> bool:
        """Whether old pods go before new ones come."""
        return self.max_surge == 0


def surge(replicas: int) -> Strategy:
    """New pods come before old ones go."""
    return Strategy(max_surge=max(1, replicas // SURGE_SHARE), max_unavailable=0)


def replace(replicas: int) -> Strategy:
    """Old pods go before new ones come."""
    return Strategy(max_surge=0, max_unavailable=max(1, replicas // REPLACE_SHARE))


def choose(replicas: int, pods: Iterable[Pod], template_hash: str, live: Strategy | None, now: datetime) -> Strategy:
    """The strategy now.

    Args:
        replicas: pods that the Deployment asks for.
        pods: live pods of every version of the spec.
        template_hash: the current version.
        live: the strategy that the Deployment has; None where there is none yet.
        now: wall time.
    """
    pods = tuple(pods)
    current = [p for p in pods if p.template_hash == template_hash]
    outdated = [p for p in pods if p.template_hash != template_hash]
    waiting = [p for p in current if not p.is_ready]
    homeless = [p for p in waiting if _wants_room(p)]
    if not outdated or any(not any(_fits(p, old) for old in outdated) for p in homeless):
        return surge(replicas)
    is_stuck = bool(homeless) and len(homeless) == len(waiting) and all(_has_waited(p, now) for p in homeless)
    replaces_already = live is not None and live.replaces
    return replace(replicas) if is_stuck or replaces_already else surge(replicas)


def of_deployment(body: Json) -> Strategy | None:
    """The strategy of a live Deployment, where it is one of ours."""
    numbers = body["spec"].get("strategy", {}).get("rollingUpdate", {})
    most, least = numbers.get("maxSurge"), numbers.get("maxUnavailable")
    return Strategy(most, least) if isinstance(most, int) and isinstance(least, int) else None


def _wants_room(pod: Pod) -> bool:
    trouble = pod.trouble
    return (
        trouble is not None
        and trouble.reason is Reason.UNSCHEDULABLE
        and any(words in trouble.message for words in _WANTS_ROOM)
    )


def _has_waited(pod: Pod, now: datetime) -> bool:
    return pod.unscheduled_since is not None and now - pod.unscheduled_since >= PATIENCE


def _fits(pod: Pod, old: Pod) -> bool:
    """Whether what the old pod has been given is enough for the new one."""
    has = dict(old.requests)
    return all(quantity.parse(asked) <= quantity.parse(has.get(name, 0)) for name, asked in pod.requests)
