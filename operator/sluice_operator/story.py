"""What is told of changes to the children, in plain words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice_operator import pod_template, rollout_strategy
from sluice_operator.reasons import EventReason
from sluice_operator.status import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sluice_operator.drift import Apply, ChildKey
    from sluice_operator.values import Child

Json = dict[str, Any]


def of_children(apply: Sequence[Apply], children: Mapping[ChildKey, Child]) -> list[Event]:
    """One event per child that is put right, and those of a rollout."""
    told = [
        Event(EventReason.CHILD_RESTORED, f"{kind} {name} was changed or deleted by someone else; it is put right")
        for a in apply
        if a.cause == "drift"
        for kind, name in [a.key]
    ]
    return told + _of_rollout(apply, children)


def _of_rollout(apply: Iterable[Apply], children: Mapping[ChildKey, Child]) -> list[Event]:
    change = next((a for a in apply if a.key[0] == "Deployment"), None)
    live = None if change is None else children.get(change.key)
    if change is None or live is None:
        return []
    if _template(live.body) != _template(change.manifest):
        note = "pods of the current spec replace those of an earlier one"
        return [Event(EventReason.ROLLOUT_STARTED, note)]
    if _begins_to_replace(live.body, change.manifest):
        note = "no node has room for one more pod: old pods go before new ones come, until the rollout is over"
        return [Event(EventReason.ROLLOUT_REPLACES, note)]
    return []


def _template(deployment: Json) -> str | None:
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    return annotations.get(pod_template.TEMPLATE_HASH)


def _begins_to_replace(live: Json, manifest: Json) -> bool:
    was, will_be = rollout_strategy.of_deployment(live), rollout_strategy.of_deployment(manifest)
    return was is not None and not was.replaces and will_be is not None and will_be.replaces
