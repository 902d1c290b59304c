"""Dynamic readiness gates against a real API server: pods are pressed by what their /health says."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.operator.builders import health_document
from tests.operator.conftest import Deployed, OperatorProcess

pytestmark = pytest.mark.cluster

Deploy = Callable[..., Deployed]
GATE = "sluice.dev/accepting"
SHORT_HOLD = {"minHoldSeconds": 1}


def calm() -> dict[str, Any]:
    return health_document(estimated_drain_time_ms=20.0)


def hot() -> dict[str, Any]:
    """More than twice the default target of 500 ms."""
    return health_document(estimated_drain_time_ms=1800.0, queued_tokens=21_600)


def refusing() -> dict[str, Any]:
    return health_document(
        estimated_drain_time_ms=2000.0, queued_tokens=24_000, accepting_requests=False, status="overloaded"
    )


def gates(service: Deployed) -> dict[str, dict[str, Any]]:
    """The condition of each pod's gate, by pod."""
    return {
        p["metadata"]["name"]: next((c for c in p["status"]["conditions"] if c["type"] == GATE), {})
        for p in service.pods()
    }


def until_gates(service: Deployed, **expected: str) -> dict[str, dict[str, Any]]:
    """Waits until the gates of these pods have these statuses."""
    return service.kubectl.eventually(
        lambda: gates(service),
        lambda seen: {name: seen.get(name, {}).get("status") for name in expected} == expected,
        within_seconds=30, what=f"gates {expected}",
    )  # fmt: skip


def told(service: Deployed, *reasons: str) -> list[tuple[str, str]]:
    return [(e["reason"], e["message"]) for e in service.events() if e["reason"] in reasons]


def ready(deploy: Deploy, replicas: int, **readiness: Any) -> tuple[Deployed, list[str]]:
    """A service whose pods all receive traffic, and their names."""
    service = deploy(replicas=replicas, readiness=SHORT_HOLD | readiness)
    service.script.health = calm()
    service.until(lambda s: s.get("status", {}).get("readyReplicas") == replicas)
    return service, sorted(p["metadata"]["name"] for p in service.pods())


def test_an_overloaded_pod_is_taken_out_of_traffic_and_comes_back(operator: OperatorProcess, deploy: Deploy) -> None:
    service, (first, *others) = ready(deploy, 3)
    service.script.by_pod[first] = hot()
    seen = until_gates(service, **{first: "False"}, **dict.fromkeys(others, "True"))
    assert seen[first]["reason"] == "Overloaded"
    assert "its queue needs 1800 ms; 2 polls in a row above 1000 ms" in seen[first]["message"]
    gated = service.until(lambda s: s["status"]["gates"] == {"open": 2, "closed": 1} and s["status"]["readyReplicas"] == 2)  # fmt: skip
    reasons = {c["type"]: (c["status"], c["reason"]) for c in gated["status"]["conditions"]}
    assert (reasons["Ready"], reasons["Saturated"]) == (("True", "Serving"), ("False", "KeepingUp"))

    service.script.by_pod[first] = calm()
    seen = until_gates(service, **dict.fromkeys([first, *others], "True"))
    assert seen[first]["reason"] == "Relieved"
    service.until(lambda s: s["status"]["gates"] == {"open": 3, "closed": 0} and s["status"]["readyReplicas"] == 3)
    changes = told(service, "GateClosed", "GateOpened", "NotReady", "Saturated")
    assert [reason for reason, _ in changes] == ["GateClosed", "GateOpened"]
    assert all(note.startswith(f"pod {first}: its queue needs ") for _, note in changes)


def test_while_nothing_changes_a_closed_gate_costs_no_write(operator: OperatorProcess, deploy: Deploy) -> None:
    service, (first, _) = ready(deploy, 2)
    service.script.by_pod[first] = refusing()
    until_gates(service, **{first: "False"})
    service.until(lambda s: s["status"]["readyReplicas"] == 1 and s["status"]["load"]["queuedTokens"] == 24_000)
    operator.until_quiet()
    writes = operator.writes()
    operator.wait_rounds(10)
    assert operator.writes() == writes
    assert list(operator.metric("sluice_closed_gates").values()) == [1.0]


def test_a_service_whose_pods_are_all_overloaded_keeps_them_in_traffic_and_says_so(
    operator: OperatorProcess, deploy: Deploy
) -> None:
    service, (first, second) = ready(deploy, 2)
    service.script.by_pod[first] = hot()
    until_gates(service, **{first: "False", second: "True"})
    service.script.health = refusing()
    seen = until_gates(service, **{first: "True", second: "True"})
    assert seen[first]["reason"] == "Saturated"
    saturated = service.until_condition("Saturated", "True", "Saturated")
    assert saturated["message"].startswith("2 of 2 serving pods are overloaded, at most 1 may be closed")
    assert f"the worst is {second}: it refuses work, its queue needs 2000 ms" in saturated["message"]
    operator.wait_rounds(1)
    assert list(operator.metric("sluice_saturated").values()) == [1.0]
    columns = service.kubectl.run("get", "emb", service.name).splitlines()[1].split()
    assert columns[5] == "True"

    service.script.health = calm()
    service.script.by_pod.clear()
    service.until_condition("Saturated", "False", "KeepingUp")
    reasons = [reason for reason, _ in told(service, "GateClosed", "GateOpened", "Saturated", "NotSaturated")]
    assert reasons == ["GateClosed", "GateOpened", "Saturated", "NotSaturated"]


def test_a_restarted_operator_keeps_a_closed_gate_for_its_hold(operator: OperatorProcess, deploy: Deploy) -> None:
    service, (first, second) = ready(deploy, 2)
    service.patch(readiness={"minHoldSeconds": 3600})
    service.script.by_pod[first] = hot()
    operator.wait_rounds(5)
    assert gates(service)[first]["status"] == "True", "opened too lately to be closed under the new hold"
    service.patch(readiness={"minHoldSeconds": 1})
    before = until_gates(service, **{first: "False"})[first]
    service.patch(readiness={"minHoldSeconds": 3600})
    operator.wait_rounds(2)
    operator.stop()
    service.script.by_pod[first] = calm()
    operator.start()
    operator.wait_rounds(6)
    assert gates(service)[first] == before
    assert gates(service)[second]["status"] == "True"


def test_pods_that_outlive_their_service_have_their_gates_opened(operator: OperatorProcess, deploy: Deploy) -> None:
    service, (first, second) = ready(deploy, 2)
    service.script.by_pod[first] = hot()
    until_gates(service, **{first: "False"})
    service.kubectl.run("delete", "emb", service.name, "--cascade=orphan")
    seen = until_gates(service, **{first: "True", second: "True"})
    assert seen[first]["reason"] == "ServiceDeleted"


def test_gates_of_a_service_that_was_deleted_while_the_operator_was_away_open_when_it_is_back(
    operator: OperatorProcess, deploy: Deploy
) -> None:
    service, (first, second) = ready(deploy, 2)
    service.script.by_pod[first] = hot()
    until_gates(service, **{first: "False"})
    operator.stop()
    service.kubectl.run("delete", "emb", service.name, "--cascade=orphan")
    operator.start()
    until_gates(service, **{first: "True", second: "True"})


def test_without_gates_a_closed_one_opens_and_the_pods_are_replaced(operator: OperatorProcess, deploy: Deploy) -> None:
    service, (first, second) = ready(deploy, 2)
    service.script.by_pod[first] = hot()
    until_gates(service, **{first: "False"})
    service.patch(readiness={"mode": "Off"})
    service.kubectl.eventually(
        lambda: {p["metadata"]["name"]: p["spec"].get("readinessGates") for p in service.pods()},
        lambda pods: not {first, second} & pods.keys() and list(pods.values()) == [None, None],
        within_seconds=40, what="pods without gates",
    )  # fmt: skip
    service.until_condition("Ready", "True", "Serving")
    # The pod is replaced within a second of it, so what was written is looked up in the log.
    assert f"opened the gate of pod {first}: readiness.mode is Off" in operator.log()


def test_startup_opens_what_dynamic_had_closed_without_waiting_and_replaces_no_pod(
    operator: OperatorProcess, deploy: Deploy
) -> None:
    service, (first, second) = ready(deploy, 2)
    uids = {p["metadata"]["uid"] for p in service.pods()}
    service.script.by_pod[first] = hot()
    until_gates(service, **{first: "False"})
    service.patch(readiness={"mode": "Startup", "minHoldSeconds": 3600})
    until_gates(service, **{first: "True", second: "True"})
    operator.wait_rounds(5)
    assert {name: gate["status"] for name, gate in gates(service).items()} == {first: "True", second: "True"}
    assert {p["metadata"]["uid"] for p in service.pods()} == uids
