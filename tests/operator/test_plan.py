"""The decision as a whole: what is done about what was seen."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sluice_operator import drift, manifests, observe, plan, pod_template
from sluice_operator.plan import Memory, Plan
from sluice_operator.reasons import EventReason, Reason
from sluice_operator.scaling import ScalingMemory
from sluice_operator.spec import EmbeddingService
from sluice_operator.values import Child, Observation, Report, Trouble

from tests.operator.builders import NOW, WALL_TIME, health, load, observation, pod, rollout, service, starting_pod

IMAGE = "sluice-server:1"
CLOSED = {"gate_is_open": False, "gate_since": WALL_TIME, "gate_reason": "Overloaded"}
Children = dict[tuple[str, str], Child]


def live_children(wanted: EmbeddingService, replicas: int) -> Children:
    """Every child as the API server holds it after an apply."""
    bodies = manifests.children(wanted, image=IMAGE, replicas=replicas)
    return {drift.key_of(b): observe.child(b, wanted.name, wanted.uid) for b in bodies}


def decide(
    wanted: EmbeddingService,
    seen: Observation,
    *,
    children: Children | None = None,
    image: str | None = IMAGE,
    memory: Memory | None = None,
    polls_over: dict[str, int] | None = None,
    **load_fields: Any,
) -> Plan:
    there = {} if children is None else children
    applied = {key: drift.record(child.body, child.body) for key, child in there.items()}
    return plan.decide(
        wanted,
        seen,
        load=load(**load_fields),
        polls_over=polls_over or {},
        children=there,
        applied=applied,
        memory=memory or Memory(),
        default_image=image,
    )


def current(wanted: EmbeddingService) -> str:
    deployment = manifests.deployment(wanted, IMAGE, 1)
    return str(deployment["spec"]["template"]["metadata"]["annotations"]["sluice.dev/template-hash"])


def ready_pods(wanted: EmbeddingService, number: int) -> list[Any]:
    return [pod(f"p{i}", says=health(), template_hash=current(wanted)) for i in range(number)]


def conditions_of(made: Plan) -> dict[str, str]:
    assert made.status is not None
    return {c["type"]: c["reason"] for c in made.status["conditions"]}


def test_a_new_service_is_given_everything_it_needs() -> None:
    made = decide(service(replicas=2), observation(rollout=None))
    assert [a.key for a in made.apply] == [
        ("Service", "minilm"), ("Service", "minilm-headless"), ("Deployment", "minilm"), ("PodDisruptionBudget", "minilm"),
    ]  # fmt: skip
    assert {a.cause for a in made.apply} == {"missing"}
    assert conditions_of(made)["Ready"] == "NoPods"
    assert made.events == []


def test_a_steady_service_is_left_alone() -> None:
    wanted = service(replicas=2)
    seen = observation(*ready_pods(wanted, 2))
    first = decide(wanted, seen, children=live_children(wanted, 2))
    assert first.status is not None
    steady = decide(wanted, replace(seen, status=first.status), children=live_children(wanted, 2))
    assert (steady.gates, steady.apply, steady.delete, steady.status, steady.events) == ([], [], [], None, [])


def test_a_pod_that_begins_to_serve_is_opened() -> None:
    wanted = service()
    made = decide(wanted, observation(starting_pod(says=health())), children=live_children(wanted, 1))
    assert [(g.pod_name, g.opens) for g in made.gates] == [("minilm-a", True)]


def hot(seen: Any) -> Any:
    """The same pod with a queue of twice the limit, or so."""
    return replace(seen, report=Report(health(drain_milliseconds=2000.0, queued_tokens=24_000), received_at=NOW))


def test_an_overloaded_pod_is_taken_out_of_traffic_and_the_service_stays_ready() -> None:
    wanted = service(replicas=3)
    first, *others = ready_pods(wanted, 3)
    seen = observation(hot(first), *others)
    made = decide(wanted, seen, children=live_children(wanted, 3), polls_over={first.uid: 3})
    assert [(g.pod_name, g.opens, g.reason) for g in made.gates] == [("p0", False, "Overloaded")]
    gated = replace(hot(first), is_ready=False, **CLOSED)
    after = decide(wanted, observation(gated, *others), children=live_children(wanted, 3), polls_over={first.uid: 4})
    assert after.gates == []
    assert conditions_of(after) == {
        "Ready": "Serving", "Available": "Serving", "Progressing": "RolledOut", "ModelLoaded": "Loaded",
        "ScalingActive": "Fixed", "Saturated": "KeepingUp",
    }  # fmt: skip
    assert after.status is not None
    assert after.status["gates"] == {"open": 2, "closed": 1}
    ready = next(c for c in after.status["conditions"] if c["type"] == "Ready")
    assert ready["message"] == "2 of 3 pods receive traffic, 1 kept out of it by closed gates"


def test_no_gate_closes_while_pods_are_replaced() -> None:
    wanted = service(replicas=3)
    first, *others = ready_pods(wanted, 3)
    for half_way in (rollout(3, updated_replicas=2), rollout(3, is_current=False), None):
        seen = observation(hot(first), *others, rollout=half_way)
        assert decide(wanted, seen, children=live_children(wanted, 3), polls_over={first.uid: 3}).gates == []
    starts = decide(
        wanted,
        observation(hot(first), *others),
        children=live_children(service(replicas=3, model={"uri": "hf://o/other"}), 3),
        polls_over={first.uid: 3},
    )
    assert (starts.gates, [a.key[0] for a in starts.apply]) == ([], ["Deployment"])


def test_a_saturated_service_says_so_once() -> None:
    wanted = service(replicas=2)
    pods = [hot(p) for p in ready_pods(wanted, 2)]
    polls_over = {p.uid: 3 for p in pods}
    calm = decide(wanted, observation(*ready_pods(wanted, 2)), children=live_children(wanted, 2))
    assert calm.status is not None
    made = decide(
        wanted, observation(*pods, status=calm.status), children=live_children(wanted, 2), polls_over=polls_over
    )
    assert made.gates == []
    assert conditions_of(made)["Saturated"] == "Saturated"
    assert [(e.reason, e.is_warning) for e in made.events] == [(EventReason.SATURATED, True)]
    assert made.status is not None
    again = decide(
        wanted, observation(*pods, status=made.status), children=live_children(wanted, 2), polls_over=polls_over
    )
    assert (again.gates, again.status, again.events) == ([], None, [])


def test_what_is_queued_behind_closed_gates_adds_pods() -> None:
    wanted = service(scaling={"mode": "Internal"})
    first, second = ready_pods(wanted, 2)
    gated = replace(hot(first), is_ready=False, **CLOSED)
    made = decide(
        wanted, observation(gated, second), children=live_children(wanted, 2),
        offered_short=6_000.0, offered_long=6_000.0, queued_tokens=480_000,
    )  # fmt: skip
    deployment = next(a.manifest for a in made.apply if a.key[0] == "Deployment")
    assert deployment["spec"]["replicas"] == 5, "0.5 / 0.85 + sqrt(0.5) / 2 + (480k/12k - 2 * 0.5 s) / 10 s"


@pytest.mark.parametrize(("state", "is_kept"), [("calm", False), ("gated", False), ("saturated", True)])
def test_pods_are_taken_away_only_while_all_keep_up(state: str, is_kept: bool) -> None:
    wanted = service(scaling={"mode": "Internal", "scaleDownStabilizationSeconds": 0})
    pods = ready_pods(wanted, 4)
    if state == "gated":
        pods[0] = replace(pods[0], is_ready=False, **CLOSED)
    if state == "saturated":
        pods = [hot(p) for p in pods]
    memory = Memory(scaling=ScalingMemory(since=0.0))
    polls_over = dict.fromkeys((p.uid for p in pods if state == "saturated"), 3)
    made = decide(wanted, observation(*pods), children=live_children(wanted, 4), memory=memory, polls_over=polls_over)
    assert made.status is not None
    assert made.status["desiredReplicas"] == (4 if is_kept else 3)


def test_a_budget_that_is_no_longer_wanted_is_deleted() -> None:
    wanted = service(replicas=1)
    made = decide(wanted, observation(*ready_pods(wanted, 1)), children=live_children(service(replicas=2), 1))
    assert [(c.kind, c.name) for c in made.delete] == [("PodDisruptionBudget", "minilm")]


def test_an_object_of_someone_else_is_neither_applied_nor_deleted() -> None:
    wanted = service(replicas=1)
    children = live_children(service(replicas=2), 1)
    for kind in ("Service", "PodDisruptionBudget"):
        children[kind, "minilm"] = replace(children[kind, "minilm"], is_ours=False, owner="someone else")
    made = decide(wanted, observation(*ready_pods(wanted, 1)), children=children)
    assert ("Service", "minilm") not in {a.key for a in made.apply}
    assert made.delete == []
    assert conditions_of(made)["Progressing"] == "NameConflict"


def test_without_an_image_nothing_is_made_and_the_reason_is_said() -> None:
    made = decide(service(), observation(rollout=None), image=None)
    assert made.apply == []
    assert conditions_of(made)["Ready"] == "NoServerImage"
    assert [e.reason for e in made.events] == [EventReason.PROBLEM]


def test_without_an_image_what_serves_is_not_torn_down() -> None:
    wanted = service(replicas=2)
    made = decide(wanted, observation(*ready_pods(wanted, 2)), children=live_children(wanted, 2), image=None)
    assert (made.apply, made.delete) == ([], [])


def test_what_was_refused_is_not_sent_again_and_still_said() -> None:
    seen = observation(rollout=None, apply_trouble=Trouble(Reason.APPLY_FAILED, "unknown field"))
    made = decide(service(), seen, memory=Memory(may_apply=False))
    assert made.apply == []
    assert conditions_of(made)["Progressing"] == "ApplyFailed"


def test_a_changed_model_is_rolled_out_and_told() -> None:
    before, after = service(replicas=2), service(replicas=2, model={"uri": "hf://o/other"})
    made = decide(after, observation(*ready_pods(before, 2)), children=live_children(before, 2))
    assert [(a.key, a.cause) for a in made.apply] == [(("Deployment", "minilm"), "spec")]
    assert EventReason.ROLLOUT_STARTED in {e.reason for e in made.events}
    assert conditions_of(made)["Progressing"] == "RollingOut"


def test_a_changed_number_of_pods_is_told_with_its_reason_and_is_no_rollout() -> None:
    before, after = service(replicas=2), service(replicas=3)
    made = decide(after, observation(*ready_pods(before, 2)), children=live_children(before, 2))
    scaled = [e for e in made.events if e.reason is EventReason.SCALED]
    assert [e.note for e in scaled] == ["2 → 3 pods: scaling.mode is Off"]
    assert EventReason.ROLLOUT_STARTED not in {e.reason for e in made.events}
    assert made.status is not None
    assert made.status["scaling"]["last"] | {"time": ""} == {
        "from": 2,
        "to": 3,
        "reason": "scaling.mode is Off",
        "time": "",
    }


def test_measured_load_adds_pods() -> None:
    wanted = service(scaling={"mode": "Internal"})
    made = decide(
        wanted, observation(*ready_pods(wanted, 1)), children=live_children(wanted, 1),
        offered_short=24_000.0, offered_long=24_000.0,
    )  # fmt: skip
    deployment = next(a.manifest for a in made.apply if a.key[0] == "Deployment")
    assert deployment["spec"]["replicas"] == 4
    assert conditions_of(made)["ScalingActive"] == "Measured"


def test_the_number_of_pods_is_kept_when_nothing_can_be_measured() -> None:
    wanted = service(scaling={"mode": "Internal"})
    seen = observation(*[replace(p, report=None) for p in ready_pods(wanted, 3)], rollout=rollout(3))
    made = decide(wanted, seen, children=live_children(wanted, 3), fresh_pods=0, asked_pods=3)
    assert made.apply == []
    assert made.status is not None
    assert made.status["desiredReplicas"] == 3
    assert conditions_of(made)["ScalingActive"] == "MetricsStale"


@pytest.mark.parametrize(
    ("cause", "change"),
    [("drift", {"spec": {"x": 1}}), ("deleted", None)],
)
def test_drift_is_put_right_and_told(cause: str, change: dict[str, Any] | None) -> None:
    wanted = service(replicas=1)
    children = live_children(wanted, 1)
    applied = {key: drift.record(child.body, child.body) for key, child in children.items()}
    key = ("Service", "minilm")
    if change is None:
        del children[key]
    else:
        children[key] = replace(children[key], body=children[key].body | change)
    made = plan.decide(
        wanted, observation(*ready_pods(wanted, 1)), load=load(), polls_over={}, children=children, applied=applied,
        memory=Memory(), default_image=IMAGE,
    )  # fmt: skip
    assert [(a.key, a.cause) for a in made.apply] == [(key, "drift")]
    assert EventReason.CHILD_RESTORED in {e.reason for e in made.events}


def declared(wanted: EmbeddingService, fingerprint: str = "f1", **fields: Any) -> Any:
    """A pod of the current spec that computes, its gate not yet opened."""
    waits = {"template_hash": current(wanted), "model_declaration": pod_template.declaration(wanted.spec.model)}
    return starting_pod(says=health(model_fingerprint=fingerprint), containers_ready=True, **{**waits, **fields})


def serving(wanted: EmbeddingService, name: str, fingerprint: str = "f1", **fields: Any) -> Any:
    """A pod that receives traffic."""
    open_gate = {"is_ready": True, "gate_is_open": True, "gate_reason": "Serving"}
    return declared(wanted, fingerprint, name=name, **{**open_gate, **fields})


def known(wanted: EmbeddingService) -> dict[str, Any]:
    return {"model": {"fingerprint": "f1", "declaration": pod_template.declaration(wanted.spec.model)}}


def test_pods_of_other_vectors_are_not_opened_though_they_serve() -> None:
    wanted = service(replicas=2)
    old = [serving(wanted, f"old-{i}", template_hash="old") for i in range(2)]
    new = declared(wanted, "f2", name="new")
    seen = observation(*old, new, rollout=rollout(3, requested_replicas=2, updated_replicas=1), status=known(wanted))
    made = decide(wanted, seen, children=live_children(wanted, 2))
    assert made.gates == []
    assert conditions_of(made)["Progressing"] == "FingerprintChanged"
    assert conditions_of(made)["Available"] == "Serving"
    assert [e.note.partition(":")[0] for e in made.events if e.is_warning] == ["FingerprintChanged"]
    assert made.status is not None
    assert made.status["model"]["fingerprint"] == "f1"
    again = decide(wanted, replace(seen, status=made.status), children=live_children(wanted, 2))
    assert (again.gates, again.apply, again.status, again.events) == ([], [], None, [])


def test_a_pod_whose_vectors_changed_in_place_leaves_the_traffic_and_does_not_come_back() -> None:
    wanted = service(replicas=2)
    changed = serving(wanted, "a", "f2")
    seen = observation(changed, serving(wanted, "b"), status=known(wanted))
    made = decide(wanted, seen, children=live_children(wanted, 2))
    assert [(g.pod_name, g.opens, g.reason) for g in made.gates] == [("a", False, "OtherVectors")]
    out = replace(changed, is_ready=False, gate_is_open=False, gate_reason="OtherVectors")
    after = decide(
        wanted, observation(out, serving(wanted, "b"), status=known(wanted)), children=live_children(wanted, 2)
    )
    assert after.gates == []
    assert conditions_of(after)["Ready"] == "FingerprintChanged"


def test_a_declared_model_change_is_told() -> None:
    before, after = service(replicas=1), service(replicas=1, model={"uri": "hf://o/other"})
    seen = observation(
        serving(before, "old"), declared(after, "f2", name="new"), rollout=rollout(1), status=known(before)
    )
    made = decide(after, seen, children=live_children(after, 1))
    assert [(g.pod_name, g.opens) for g in made.gates] == [("new", True)]
    (told,) = [e.note for e in made.events if e.reason is EventReason.MODEL_CHANGED]
    assert told.startswith("pods compute other vectors now, as spec.model says: fingerprint f1 → f2")


def test_the_budget_follows_the_gates_and_is_otherwise_left_alone() -> None:
    wanted = service(replicas=4)
    first, *others = ready_pods(wanted, 4)
    gated = replace(first, is_ready=False, **CLOSED)
    made = decide(wanted, observation(gated, *others), children=live_children(wanted, 4))
    assert [a.key[0] for a in made.apply] == ["PodDisruptionBudget"]
    assert made.apply[0].manifest["spec"]["maxUnavailable"] == 2
    bodies = manifests.children(wanted, image=IMAGE, replicas=4, gated=1)
    there = {drift.key_of(b): observe.child(b, wanted.name, wanted.uid) for b in bodies}
    assert decide(wanted, observation(gated, *others), children=there).apply == []


def test_the_pods_with_least_to_do_are_marked_before_the_number_is_lowered() -> None:
    before, after = service(replicas=3), service(replicas=2)
    idle, *others = ready_pods(before, 3)
    pods = [idle, *(hot(p) for p in others)]
    down = decide(after, observation(*pods), children=live_children(before, 3))
    assert [(c.pod_name, c.cost) for c in down.costs] == [("p0", -100)]
    assert "Deployment" in {a.key[0] for a in down.apply}
    assert decide(before, observation(*pods), children=live_children(before, 3)).costs == []
    up = decide(service(replicas=5), observation(*pods), children=live_children(before, 3))
    assert up.costs == []


def homeless(wanted: EmbeddingService) -> Any:
    return starting_pod(
        "new", is_running=False, template_hash=current(wanted), unscheduled_since=WALL_TIME - timedelta(minutes=1),
        trouble=Trouble(Reason.UNSCHEDULABLE, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
    )  # fmt: skip


def test_a_rollout_without_room_goes_on_with_old_pods_first_and_says_so_once() -> None:
    wanted = service(replicas=2)
    old = [pod(f"old-{i}", says=health(), template_hash="old") for i in range(2)]
    seen = observation(*old, homeless(wanted), rollout=rollout(3, requested_replicas=2, updated_replicas=1))
    made = decide(wanted, seen, children=live_children(wanted, 2))
    (deployment,) = [a.manifest for a in made.apply]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert EventReason.ROLLOUT_REPLACES in {e.reason for e in made.events}
    there = live_children(wanted, 2)
    there["Deployment", "minilm"] = observe.child(deployment, wanted.name, wanted.uid)
    assert decide(wanted, seen, children=there).apply == []
    moved_in = observation(old[0], starting_pod("new", template_hash=current(wanted)), rollout=rollout(2))
    assert decide(wanted, moved_in, children=there).apply == [], "it stays so until the rollout is over"
    over = decide(wanted, observation(*ready_pods(wanted, 2)), children=there)
    assert over.apply[0].manifest["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert not {EventReason.ROLLOUT_STARTED, EventReason.ROLLOUT_REPLACES} & {e.reason for e in over.events}


@pytest.mark.parametrize(("mode", "reason"), [("Observe", "Observing"), ("External", "ExternalAutoscaler")])
def test_what_internal_would_do_is_shown_and_not_done(mode: str, reason: str) -> None:
    wanted = service(scaling={"mode": mode}, replicas=1)
    made = decide(
        wanted, observation(*ready_pods(wanted, 1)), children=live_children(wanted, 1),
        offered_short=24_000.0, offered_long=24_000.0,
    )  # fmt: skip
    assert made.apply == []
    assert conditions_of(made)["ScalingActive"] == reason
    assert made.status is not None
    assert (made.status["desiredReplicas"], made.status["scaling"]["recommendedReplicas"]) == (1, 4)
    assert made.status["scaling"]["recommendation"].startswith("offered 24k tok/s at 12k tok/s per pod")
    assert made.scaling.advised == 4


def test_an_advice_outlives_the_operator() -> None:
    wanted = service(scaling={"mode": "Observe"}, replicas=1)
    before = {"scaling": {"recommendedReplicas": 6}}
    seen = observation(*ready_pods(wanted, 1), status=before)
    made = decide(wanted, seen, children=live_children(wanted, 1), capacity=None)
    assert made.scaling.advised is not None
    assert made.status is not None
    assert made.status["scaling"]["recommendedReplicas"] == 6, "held, as nothing is measured yet"


def test_a_steady_service_that_only_advises_is_left_alone() -> None:
    wanted = service(scaling={"mode": "Observe"}, replicas=2)
    seen = observation(*ready_pods(wanted, 2))
    first = decide(wanted, seen, children=live_children(wanted, 2))
    steady = decide(
        wanted,
        replace(seen, status=first.status),
        children=live_children(wanted, 2),
        memory=Memory(scaling=first.scaling),
    )
    assert (steady.apply, steady.status, steady.events) == ([], None, [])


def test_a_cluster_without_the_api_is_told_and_nothing_else_waits_for_it() -> None:
    wanted = service(replicas=1, monitoring={"serviceMonitor": {"enabled": True}})
    seen = observation(*ready_pods(wanted, 1), missing_kinds=frozenset({"ServiceMonitor"}))
    made = decide(wanted, seen, children={})
    assert {a.key[0] for a in made.apply} == {"Service", "Deployment"}
    there = {k: c for k, c in live_children(wanted, 1).items() if k[0] != "ServiceMonitor"}
    made = decide(wanted, seen, children=there)
    assert made.apply == []
    assert conditions_of(made)["Progressing"] == "ServiceMonitorUnavailable"
    assert conditions_of(made)["Ready"] == "Serving"


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"networkPolicy": {"enabled": True}}, "NetworkPolicy"),
        ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "ServiceMonitor"),
    ],
)
def test_what_is_switched_off_is_deleted(asked: dict[str, Any], kind: str) -> None:
    on, off = service(replicas=1, **asked), service(replicas=1)
    made = decide(off, observation(*ready_pods(off, 1)), children=live_children(on, 1))
    assert [(c.kind, c.name) for c in made.delete] == [(kind, "minilm")]
