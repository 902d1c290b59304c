"""Whose vectors a service serves: what is accepted, what is kept out, and what is said."""

from typing import Any

import pytest
from sluice_operator.pod_template import declaration
from sluice_operator.reasons import GateReason, Reason
from sluice_operator.spec import ModelSpec
from sluice_operator.values import Health, Pod
from sluice_operator.vector_space import VectorSpace, assess

from tests.operator.builders import health, pod, service, starting_pod


def model(uri: str = "hf://o/m", **fields: Any) -> ModelSpec:
    return service(model={"uri": uri, **fields}).spec.model


MODEL = model()
KNOWN = {"dimension": 384, "revision": "abc", "fingerprint": "f1", "declaration": declaration(MODEL)}


def computing(name: str, fingerprint: str | None, declared: ModelSpec = MODEL, **fields: Any) -> Pod:
    return pod(name, says=health(model_fingerprint=fingerprint), model_declaration=declaration(declared), **fields)


def waiting(name: str, fingerprint: str, declared: ModelSpec = MODEL, **fields: Any) -> Pod:
    said = health(model_fingerprint=fingerprint)
    return starting_pod(name, says=said, model_declaration=declaration(declared), **fields)


def judged(*pods: Pod, before: dict[str, Any] | None = None, declared: ModelSpec = MODEL) -> VectorSpace:
    return assess(declared, KNOWN if before is None else before, pods)


def test_the_first_pod_that_serves_says_whose_vectors_they_are() -> None:
    space = judged(waiting("a", "f1"), before={})
    assert space.model == KNOWN
    assert (space.strangers, space.trouble, space.change) == (frozenset(), None, None)


def test_one_half_of_a_fingerprint_is_enough_and_the_first_one_is_kept() -> None:
    before = KNOWN | {"fingerprint": "aa-bb"}
    space = judged(computing("a", "cc-bb"), computing("b", "aa-dd"), computing("c", "bb-aa"), before=before)
    assert space.strangers == {"uid-c"}
    assert space.model["fingerprint"] == "aa-bb"
    assert space.change is None


def test_of_several_first_pods_the_one_that_receives_traffic_goes_first() -> None:
    space = judged(waiting("a", "f2"), computing("b", "f1"), before={})
    assert space.model["fingerprint"] == "f1"
    assert space.strangers == {"uid-a"}


@pytest.mark.parametrize("says", [None, health("loading"), health(model_fingerprint=None)])
def test_nothing_is_said_of_pods_that_have_not_computed(says: Health | None) -> None:
    silent = starting_pod("a", says=says, model_declaration=declaration(MODEL))
    assert judged(silent, before={}) == VectorSpace({}, frozenset(), None, None)
    assert judged(silent).model == KNOWN


def test_a_pod_of_the_same_declaration_and_other_vectors_is_a_stranger() -> None:
    space = judged(computing("old", "f1", template_hash="old"), waiting("new", "f2"))
    assert space.strangers == {"uid-new"}
    assert space.model == KNOWN
    assert space.trouble is not None
    assert space.trouble.reason is Reason.FINGERPRINT_CHANGED
    assert "fingerprint f2 and not f1" in space.trouble.message
    assert "spec.model.fingerprint to f2" in space.trouble.message
    assert space.gate_changes([waiting("new", "f2")]) == [], "its gate was never open"


def test_even_the_last_pod_is_kept_out_and_its_gate_closed() -> None:
    changed = computing("a", "f2")
    (closed,) = judged(changed).gate_changes([changed])
    assert (closed.pod_uid, closed.opens, closed.reason) == ("uid-a", False, GateReason.OTHER_VECTORS)


def test_a_pod_without_a_gate_can_only_be_told_of() -> None:
    changed = computing("a", "f2", has_gate=False, gate_is_open=None)
    space = judged(changed)
    assert space.trouble is not None
    assert space.gate_changes([changed]) == []


def test_a_declared_change_is_accepted_and_told() -> None:
    other = model("hf://o/other")
    old, new = computing("old", "f1"), waiting("new", "f2", other)
    before_it_serves = judged(old, declared=other)
    assert (before_it_serves.model, before_it_serves.change) == (KNOWN, None)
    space = judged(old, new, declared=other)
    assert (space.strangers, space.trouble) == (frozenset(), None)
    assert space.model["fingerprint"] == "f2"
    assert space.change is not None
    assert "fingerprint f1 → f2" in space.change.note
    again = assess(other, space.model, [old, new])
    assert (again.model, again.change, again.trouble) == (space.model, None, None)


def test_a_change_that_is_taken_back_meets_its_old_pods_again() -> None:
    other = model("hf://o/other")
    accepted = judged(computing("old", "f1"), waiting("new", "f2", other), declared=other).model
    space = assess(MODEL, accepted, [computing("old", "f1"), waiting("new", "f2", other)])
    assert space.model == KNOWN
    assert space.strangers == frozenset()


def test_other_precision_is_no_other_model() -> None:
    in_bfloat16 = model(dtype="bfloat16")
    assert judged(waiting("new", "f2", in_bfloat16), declared=in_bfloat16).strangers == {"uid-new"}


def test_a_fingerprint_in_the_spec_decides_from_the_first_pod_on() -> None:
    pinned = model(fingerprint="01234567-89abcdef")
    wrong = judged(waiting("a", "f1", pinned), before={}, declared=pinned)
    assert wrong.strangers == {"uid-a"}
    assert wrong.model == {}
    assert wrong.trouble is not None
    assert "as spec.model.fingerprint asks for" in wrong.trouble.message
    right = judged(waiting("a", "01234567-89abcdef", pinned), declared=pinned)
    assert (right.strangers, right.model["fingerprint"]) == (frozenset(), "01234567-89abcdef")


def test_pods_and_a_status_from_before_there_were_declarations_are_left_alone() -> None:
    unsaid = pod("a", says=health(model_fingerprint="f2"))
    earlier = {"dimension": 384, "fingerprint": "f1"}
    assert assess(MODEL, earlier, [unsaid]) == VectorSpace(earlier, frozenset(), None, None)
