"""Which children are applied, and why."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sluice_operator import drift, observe

from tests.operator.builders import service

MANIFEST = {"kind": "Service", "metadata": {"name": "minilm", "labels": {"a": "b"}}, "spec": {"port": 1}}
KEY = ("Service", "minilm")
OWNER = {"controller": True, "uid": "uid-1", "kind": "EmbeddingService", "name": "minilm"}


def live(**spec: Any) -> dict[str, Any]:
    """What the API server made of the manifest: with defaults of its own."""
    body = copy.deepcopy(MANIFEST)
    body["metadata"] |= {"uid": "u", "resourceVersion": "1", "ownerReferences": [OWNER]}  # type: ignore[operator]
    body["spec"] |= {"clusterIP": "10.0.0.1", **spec}  # type: ignore[operator]
    return body


def causes(manifest: dict[str, Any], body: dict[str, Any] | None, applied: dict[Any, Any]) -> list[str]:
    children = {} if body is None else {KEY: observe.child(body, "minilm", service().uid)}
    return [a.cause for a in drift.to_apply([manifest], children, applied)]


REMEMBERED = {KEY: drift.record(MANIFEST, live())}


def test_a_steady_child_is_left_alone() -> None:
    assert causes(MANIFEST, live(), REMEMBERED) == []


def test_a_missing_child_is_made() -> None:
    assert causes(MANIFEST, None, {}) == ["missing"]


def test_a_child_that_was_there_and_is_gone_was_taken_away() -> None:
    assert causes(MANIFEST, None, REMEMBERED) == ["drift"]


def test_a_restarted_operator_applies_once() -> None:
    assert causes(MANIFEST, live(), {}) == ["restart"]


def test_a_changed_spec_is_applied() -> None:
    assert causes(MANIFEST | {"spec": {"port": 2}}, live(), REMEMBERED) == ["spec"]


def test_a_change_by_someone_else_is_put_right() -> None:
    assert causes(MANIFEST, live(port=9), REMEMBERED) == ["drift"]


def test_a_child_of_someone_else_is_never_touched() -> None:
    body = live()
    body["metadata"]["ownerReferences"] = [{"controller": True, "uid": "x", "kind": "Helm", "name": "y"}]
    assert causes(MANIFEST, body, {}) == []


def test_what_controllers_note_on_a_child_is_no_drift() -> None:
    body = live() | {"status": {"ready": 1}}
    body["metadata"] |= {
        "annotations": {"deployment.kubernetes.io/revision": "7"},
        "resourceVersion": "99",
        "generation": 5,
    }
    assert causes(MANIFEST, body, REMEMBERED) == []


@given(st.dictionaries(st.sampled_from(["port", "selector", "clusterIP"]), st.integers(2, 9), min_size=1))
def test_every_change_of_the_spec_is_seen(change: dict[str, int]) -> None:
    assert causes(MANIFEST, live(**change), REMEMBERED) == ["drift"]
