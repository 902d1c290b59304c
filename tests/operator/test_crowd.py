"""A crowd of pods under one operator, in small; `python -m bench.crowd` measures the same with a thousand.

Real control plane, nodes and pods played by kwok, /health answered by one process with the noise of steady traffic.
Nothing here depends on how fast the machine is.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sluice_operator.status import WORDING_INTERVAL_SECONDS
from sluice_operator.values import GATE

from tests.e2e.kubectl import Kubectl
from tests.operator.conftest import OperatorProcess
from tests.operator.crowd_health import CrowdHealth
from tests.operator.fake_nodes import PLACEMENT, fake_nodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SERVICES, REPLICAS = 6, 20
NETWORK = f"127.{216 + os.getpid() % 38}.0"
"""On loopback, apart from the pods of `kubelet` and of other test runs."""
HOT = {"estimated_drain_time_ms": 1800.0, "queued_tokens": 21_600}
MOST_CLOSED_PERCENT = 50
POLL_SECONDS = 1.0


@dataclass(slots=True)
class Crowd:
    """All pods of the test's namespace."""

    kubectl: Kubectl
    health: CrowdHealth

    def pods(self) -> list[dict[str, Any]]:
        return self.kubectl.get("pods")["items"]

    def closed(self) -> dict[str, dict[str, Any]]:
        """Closed gates by pod."""
        gates = {p["metadata"]["name"]: gate(p) for p in self.pods()}
        return {name: found for name, found in gates.items() if found.get("status") == "False"}

    def until_closed(self, names: set[str], within_seconds: float = 60) -> dict[str, dict[str, Any]]:
        """Waits until exactly these pods are closed; at no look are more of any service than may be."""

        def are_these(closed: dict[str, dict[str, Any]]) -> bool:
            of_service = Counter(name.rsplit("-", 2)[0] for name in closed)
            assert max(of_service.values(), default=0) <= REPLICAS * MOST_CLOSED_PERCENT // 100
            return closed.keys() == names

        return self.kubectl.eventually(
            self.closed, are_these, within_seconds=within_seconds, what=f"{len(names)} closed"
        )


def gate(pod: dict[str, Any]) -> dict[str, Any]:
    return next((c for c in pod["status"].get("conditions", []) if c["type"] == GATE), {})


def is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


@pytest.fixture
def crowd(kubectl: Kubectl, tmp_path: Path) -> Iterator[Crowd]:
    """Services whose pods will all serve; gone after the test, with their pods."""
    addresses = [f"{NETWORK}.{n}" for n in range(256)]
    nodes = fake_nodes(kubectl, 2, pod_addresses=f"{NETWORK}.0/24", log_file=tmp_path / "kwok.log")
    with CrowdHealth(addresses) as health, nodes:
        kubectl.apply(*({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "EmbeddingService", "metadata": {"name": f"crowd{n}"},
            "spec": {"model": {"uri": "hf://org/model"}, **PLACEMENT,
                     "scaling": {"mode": "Internal", "minReplicas": REPLICAS, "maxReplicas": REPLICAS},
                     "readiness": {"minHoldSeconds": 1, "maxClosedPercent": MOST_CLOSED_PERCENT}},
        } for n in range(SERVICES)))  # fmt: skip
        yield Crowd(kubectl, health)
        kubectl.run("delete", "embeddingservices", "--all")
        kubectl.run("delete", "deployments", "--all", "--cascade=foreground", "--timeout=60s", timeout_seconds=70)


def until_nothing_is_written(operator: OperatorProcess, kubectl: Kubectl) -> None:
    """A span that is longer than the one in which noise would be written, without a write; not the first one, perhaps."""
    rounds = int(SERVICES * (WORDING_INTERVAL_SECONDS + 1) / POLL_SECONDS)
    spans, figures = [], [_figures(kubectl)]
    while len(spans) < 4:
        before = operator.writes()
        operator.wait_rounds(rounds)
        spans.append(operator.writes() - before)
        figures.append(_figures(kubectl))
        if spans[-1] == 0:
            return
    moved = [f"{was} -> {now}" for was, now in pairwise(figures[1:])]
    raise AssertionError(
        f"writes in spans of {rounds} rounds: {spans}\n{operator.metric('sluice_operator_kube_writes')}\n"
        + "\n".join(moved)
    )


def _figures(kubectl: Kubectl) -> list[tuple[Any, Any]]:
    """What every service's status says of its load."""
    statuses = [s["status"] for s in kubectl.get("embeddingservices")["items"]]
    return [(s.get("load"), s.get("scaling", {}).get("tokensPerSecondPerPod")) for s in statuses]


def test_a_crowd_costs_no_write_while_it_is_well_and_few_at_a_time_in_a_storm(
    new_operator: Callable[..., OperatorProcess], crowd: Crowd
) -> None:
    operator = new_operator(POLL_INTERVAL_SECONDS=str(POLL_SECONDS), POLL_TIMEOUT_SECONDS="2", STALE_AFTER_SECONDS="10")
    operator.start()
    pods = crowd.kubectl.eventually(
        crowd.pods, lambda seen: len(seen) == SERVICES * REPLICAS and all(map(is_ready, seen)),
        within_seconds=120, what="all pods in traffic",
    )  # fmt: skip
    address = {p["metadata"]["name"]: p["status"]["podIP"] for p in pods}

    until_nothing_is_written(operator, crowd.kubectl)

    one = min(address)
    crowd.health.say([address[one]], **HOT)
    closed = crowd.until_closed({one})
    assert "; 2 polls in a row above 1000 ms" in closed[one]["message"]
    crowd.health.say([address[one]])
    crowd.until_closed(set())

    # A third of most services, and so much of one that closing would only press the rest harder.
    of_service = {n: sorted(name for name in address if name.startswith(f"crowd{n}-")) for n in range(SERVICES)}
    some = {name for n in range(1, SERVICES) for name in of_service[n][: REPLICAS // 3]}
    crowd.health.say([address[name] for name in [*some, *of_service[0][: REPLICAS * 3 // 4]]], **HOT)
    closed = crowd.until_closed(some)
    assert max(Counter(found["lastTransitionTime"] for found in closed.values()).values()) <= 10
    saturated = crowd.kubectl.get("embeddingservice", "crowd0")["status"]["conditions"]
    assert next(c["status"] for c in saturated if c["type"] == "Saturated") == "True"

    crowd.health.say(list(address.values()))
    crowd.until_closed(set())
