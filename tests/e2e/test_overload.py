"""Real pods under real load: who is overloaded is taken out, all who are overloaded stay in and get help."""

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.conftest import MODEL, Service, embedding_service
from tests.e2e.kubectl import Kubectl, condition

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

GATE = "sluice.dev/accepting"
TOKENS_PER_REQUEST = 512
"""Of clients/flood.py."""
# A gate's condition is dated in whole seconds.
CLOCK_SECONDS = 1


@pytest.fixture
def busy(service: Service, cluster_kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Pods from the one number to the other, all Ready, that the operator scales; small times, as a test is short."""
    least, most = request.param
    manifest = embedding_service("busy", uri=f"pvc://models/{MODEL}")
    del manifest["spec"]["replicas"]
    manifest["spec"] |= {
        "model": {"uri": f"pvc://models/{MODEL}"},
        "scaling": {
            "minReplicas": least,
            "maxReplicas": most,
            "targetDrainMilliseconds": 400,
            "scaleDownStabilizationSeconds": 30,
        },
        "readiness": {"minHoldSeconds": 5},
    }
    cluster_kubectl.apply(manifest)
    made = Service("busy", cluster_kubectl, service.server_image)
    made.eventually(lambda s: s.get("status", {}).get("readyReplicas") == least, within_seconds=300)
    yield made
    cluster_kubectl.run("delete", "embeddingservice", "busy", "--timeout=120s", timeout_seconds=130)


def gates(service: Service) -> dict[str, dict[str, Any]]:
    """The condition of each pod's gate, by pod."""
    return {p["metadata"]["name"]: condition(p, GATE) for p in service.pods()}


def in_traffic(service: Service) -> set[str]:
    """Pods that the headless Service's EndpointSlices offer to clients."""
    selector = f"kubernetes.io/service-name={service.name}-headless"
    return {
        endpoint["targetRef"]["name"]
        for piece in service.kubectl.get("endpointslices", "-l", selector)["items"]
        for endpoint in piece.get("endpoints") or []
        if endpoint["conditions"].get("ready")
    }


def measured_tokens_per_second(service: Service, target: str) -> float:
    """What one pod computes while the others are idle, as the operator measures it under work.

    They warmed up all at once, each with a part of the machine's cores: what they report since then is less. One request
    at a time keeps a pod busy, and its queue too short to close its gate.
    """
    with service.flood(target=target, threads=1):
        seen = service.eventually(
            lambda s: "tokensPerSecondPerPod" in s["status"].get("scaling", {}), within_seconds=90
        )
    return float(seen["status"]["scaling"]["tokensPerSecondPerPod"])


def flooding_threads(tokens_per_second: float) -> int:
    """Twice what the pod's queue may hold (2 s), and not so much that two others could not take it over."""
    return math.ceil(4 * tokens_per_second / TOKENS_PER_REQUEST)


def story(service: Service) -> list[tuple[str, str]]:
    """The service's Events about load, each with its reason and words, in the order of their first times."""
    uid = service.get()["metadata"]["uid"]
    told = service.kubectl.get("events", "--field-selector", f"involvedObject.uid={uid}")["items"]
    about_load = {"GateClosed", "GateOpened", "Saturated", "NotSaturated", "Scaled"}
    told.sort(key=lambda e: e.get("eventTime") or e["firstTimestamp"])
    return [(e["reason"], e["message"]) for e in told if e["reason"] in about_load]


# No more than three: another one that starts would take the cores from those that serve, on a small machine.
@pytest.mark.parametrize("busy", [(3, 3)], indirect=True)
def test_an_overloaded_pod_leaves_the_traffic_and_returns_and_nothing_accepted_is_lost(busy: Service) -> None:
    victim, other, *_ = busy.pods()
    name, target = victim["metadata"]["name"], f"ipv4:{victim['status']['podIP']}:50051"
    threads = flooding_threads(measured_tokens_per_second(busy, target))
    print(f"a flood of {threads} threads")
    assert gates(busy)[name]["status"] == "True"
    with busy.flood(target=target, threads=threads) as flood:
        refused_at = flood.first("RESOURCE_EXHAUSTED", within_seconds=90)
        seen = busy.kubectl.eventually(
            lambda: gates(busy)[name], lambda gate: gate["status"] == "False", within_seconds=30, what="a closed gate"
        )
        closed_at = datetime.fromisoformat(seen["lastTransitionTime"]).timestamp()
        print(f"gated {closed_at - refused_at:.1f} s after the first refusal")
        assert closed_at - refused_at <= 5 + CLOCK_SECONDS
        assert seen["reason"] == "Overloaded"
        busy.kubectl.eventually(
            lambda: in_traffic(busy),
            lambda pods: name not in pods and other["metadata"]["name"] in pods,
            within_seconds=10,
            what="the EndpointSlice without the pod",
        )
    busy.kubectl.eventually(
        lambda: in_traffic(busy), lambda pods: name in pods, within_seconds=60, what="the pod back in traffic"
    )
    assert set(flood.outcomes) <= {"OK", "RESOURCE_EXHAUSTED"}, flood.outcomes
    assert flood.outcomes["OK"] > 0
    assert gates(busy)[name]["reason"] == "Relieved"


@pytest.mark.parametrize("busy", [(2, 4)], indirect=True)
def test_a_service_that_is_overloaded_as_a_whole_stays_open_grows_and_shrinks_again(busy: Service) -> None:
    with busy.steady_client(max_seconds=900) as steady:
        with busy.flood(threads=96) as flood:
            busy.eventually(lambda s: condition(s, "Saturated")["status"] == "True", within_seconds=60)
            busy.kubectl.eventually(
                lambda: {gate["status"] for gate in gates(busy).values() if gate["reason"] != ""},
                lambda statuses: statuses == {"True"},
                within_seconds=20,
                what="all gates open",
            )
            grown = busy.eventually(lambda s: s["status"].get("readyReplicas") == 4, within_seconds=240)
            assert grown["status"]["desiredReplicas"] == 4
            last = grown["status"]["scaling"]
        busy.eventually(lambda s: condition(s, "Saturated")["status"] == "False", within_seconds=60)
        shrunk = busy.eventually(
            lambda s: s["status"]["desiredReplicas"] == 2 and s["status"].get("readyReplicas") == 2,
            within_seconds=400,
        )
        assert shrunk["status"]["scaling"] != last
    assert set(flood.outcomes) <= {"OK", "RESOURCE_EXHAUSTED"}, flood.outcomes
    assert flood.outcomes["OK"] > 0
    assert set(steady.outcomes) <= {"OK", "RESOURCE_EXHAUSTED"}, steady.outcomes
    told = story(busy)
    # The condition's own words follow the polls: in between a queue may be just below the limit.
    assert "serving pods are overloaded" in next(words for reason, words in told if reason == "Saturated"), told
    reasons = [reason for reason, _ in told]
    assert reasons.index("Saturated") < reasons.index("NotSaturated"), told
    scaled = [i for i, reason in enumerate(reasons) if reason == "Scaled"]
    assert scaled[0] < reasons.index("NotSaturated") < scaled[-1], told
