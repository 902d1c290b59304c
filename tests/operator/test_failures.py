"""What goes wrong around the operator, against the real control plane: nothing flaps, nothing is lost, it converges."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.e2e.kubectl import Kubectl, condition
from tests.operator.api import api_client
from tests.operator.builders import health_document
from tests.operator.conftest import CONTROLLERS_SECONDS, ControlPlane, Deployed, OperatorProcess
from tests.operator.kubelet import Kubelet
from tests.operator.witness import Witness

OUTAGE_SECONDS = float(os.environ.get("SLUICE_TEST_OUTAGE_SECONDS", "15"))
"""How long the API server or etcd is away: longer than the leader may go on without its lease."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240 + 2 * (OUTAGE_SECONDS + CONTROLLERS_SECONDS))]

Deploy = Callable[..., Deployed]
NewOperator = Callable[..., OperatorProcess]
Pair = tuple[OperatorProcess, OperatorProcess]
Watch = Callable[[Deployed], Witness]
LEASE_SECONDS = 10


@pytest.fixture
def pair(new_operator: NewOperator) -> Pair:
    """A leader, and a standby that knows all there is."""
    leader, standby = new_operator(), new_operator()
    leader.start()
    standby.launch()
    standby.wait_until("knowsWhatThereIs")
    return leader, standby


@pytest.fixture
def watch(control_plane: ControlPlane) -> Watch:
    return lambda service: Witness(control_plane.kubeconfig, service.kubectl.namespace, service.name)


@pytest.fixture
def breakable(control_plane: ControlPlane, kubelet: Kubelet) -> Iterator[ControlPlane]:
    """The control plane, which is whole again after the test: its controllers and the scheduler work."""
    kubelet.may_fail = True
    yield control_plane
    control_plane.mend()
    control_plane.until_controllers_work()
    kubelet.may_fail = False


@pytest.fixture
def outage(breakable: ControlPlane) -> Callable[[str], None]:
    """Takes a daemon of the control plane away for a while."""

    def take_away(daemon: str) -> None:
        breakable.kill(daemon)
        time.sleep(OUTAGE_SECONDS)
        breakable.mend()

    return take_away


def serving(deploy: Deploy, replicas: int, **spec: Any) -> Deployed:
    service = deploy(replicas=replicas, **spec)
    service.until(lambda s: s.get("status", {}).get("readyReplicas") == replicas)
    return service


def quiet(*operators: OperatorProcess) -> None:
    for one in operators:
        if one.health("/readyz")["acts"]:
            one.until_quiet()


def writes(*operators: OperatorProcess) -> list[float]:
    return [one.writes() for one in operators]


def who_acts(*operators: OperatorProcess) -> OperatorProcess:
    """The one that acts, once one does."""
    deadline = time.monotonic() + 40
    while True:
        acting = [one for one in operators if one.health().get("acts")]
        assert len(acting) <= 1, "two act at the same time"
        if acting:
            return acting[0]
        assert time.monotonic() < deadline, "nobody acts"
        time.sleep(0.1)


def unchanged(service: Deployed) -> dict[str, str]:
    """The version of everything that belongs to a service but the pods' own heartbeat."""
    selector = f"sluice.dev/embeddingservice={service.name}"
    owned = service.kubectl.get("pods,deployments,services,poddisruptionbudgets", "-l", selector)["items"]
    return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["uid"] for o in owned}


def told(service: Deployed) -> list[tuple[str, str]]:
    return [(e["reason"], e["message"]) for e in service.events()]


def test_a_standby_knows_all_is_ready_and_writes_nothing(pair: Pair, deploy: Deploy) -> None:
    leader, standby = pair
    service = serving(deploy, 2)
    quiet(leader)
    seen = standby.health("/readyz")
    assert (seen["status"], seen["role"], seen["acts"]) == (200, "standby", False)
    assert seen["leader"].startswith("operator-0_")
    assert standby.health("/healthz")["status"] == 200
    assert set(seen["watchAgeSeconds"]) >= {"EmbeddingService", "Deployment", "Pod"}
    assert (leader.health()["role"], standby.metric("sluice_operator_leads")) == ("leader", {"": 0.0})
    before = writes(leader, standby)
    assert before[1] == 0
    leader.wait_rounds(12)
    assert writes(leader, standby) == before
    assert told(service) == [("Ready", told(service)[0][1])]


def test_a_leader_killed_during_a_rollout_is_replaced_within_15_seconds_and_the_rollout_ends(
    pair: Pair, deploy: Deploy, watch: Watch
) -> None:
    leader, standby = pair
    service = serving(deploy, 3)
    quiet(leader)
    old = {p["metadata"]["name"] for p in service.pods()}
    service.script.by_pod.update(dict.fromkeys(old, service.script.health))
    service.script.health = health_document("warming", step=1, steps=9)
    with watch(service) as witness:
        service.patch(server={"layout": "packed"})
        service.kubectl.eventually(
            service.pods, lambda pods: len(pods) > 3, within_seconds=30, what="a pod of the new version"
        )
        quiet(leader)
        generation = service.child("deployment")["metadata"]["generation"]
        leader.send(signal.SIGKILL)
        took = standby.wait_until("acts", within_seconds=20)
        assert took <= 15, f"the standby took over after {took:.1f} s"
        service.script.health = health_document()
        service.until_condition("Progressing", "True", "RolledOut")
        service.until(lambda s: s["status"]["readyReplicas"] == 3)
        quiet(standby)
    assert witness.least_ready >= 3, "capacity was lost"
    assert all(states in (["True"], ["False", "True"]) for states in witness.gates.values()), witness.gates
    assert all(state.startswith("True/") for state in witness.conditions["Available"]), witness.conditions
    rolled = [state.split("/")[0] for state in witness.conditions["Ready"]]
    assert rolled == ["True", "False", "True"], "it says that it rolls out, once"
    assert set(witness.replicas) == {3}
    assert service.child("deployment")["metadata"]["generation"] == generation, "the new leader wrote it again"
    assert not old & {p["metadata"]["name"] for p in service.pods()}
    reasons = [reason for reason, _ in told(service)]
    assert [reasons.count(r) for r in ("RolloutStarted", "NotReady", "Ready")] == [1, 1, 2], told(service)


def test_a_leader_that_is_told_to_end_hands_over_without_waiting_for_its_lease(pair: Pair, deploy: Deploy) -> None:
    leader, standby = pair
    service = serving(deploy, 2)
    quiet(leader)
    before = unchanged(service)
    leader.send(signal.SIGTERM)
    assert standby.wait_until("acts") < LEASE_SECONDS - 2
    standby.until_quiet()
    assert unchanged(service) == before
    lease = service.kubectl.get("lease", "sluice-operator")["spec"]
    assert lease["holderIdentity"].startswith("operator-1_")
    assert lease["leaseTransitions"] == 1


def test_a_leader_that_was_frozen_writes_nothing_when_it_thaws_and_stands_by(
    pair: Pair, deploy: Deploy, watch: Watch
) -> None:
    leader, standby = pair
    service = serving(deploy, 2)
    quiet(leader)
    before = leader.writes()
    with watch(service) as witness:
        leader.send(signal.SIGSTOP)
        standby.wait_until("acts", within_seconds=20)
        # It has a change to write the moment it thaws.
        service.patch(replicas=3)
        service.until(lambda s: s["status"]["readyReplicas"] == 3)
        standby.until_quiet()
        events = told(service)
        leader.send(signal.SIGCONT)
        deadline = time.monotonic() + 20
        while leader.health().get("role") != "standby" or leader.health()["acts"]:
            assert time.monotonic() < deadline, leader.log()
            time.sleep(0.1)
        standby.wait_rounds(5)
        assert leader.writes() == before
    assert told(service) == events
    assert witness.replicas == [2, 3]
    assert all(state.startswith("True/") for state in witness.conditions["Available"]), witness.conditions
    assert all(states == ["True"] for states in witness.gates.values())


@pytest.mark.parametrize("daemon", ["kube-apiserver", "etcd"])
def test_while_it_is_away_nothing_flaps_and_afterwards_all_goes_on(
    daemon: str, pair: Pair, deploy: Deploy, watch: Watch, outage: Callable[[str], None], breakable: ControlPlane
) -> None:
    service = serving(deploy, 3)
    quiet(*pair)
    before, events = unchanged(service), told(service)
    with watch(service) as witness:
        outage(daemon)
        acting = who_acts(*pair)
        acting.until_quiet()
        assert unchanged(service) == before, "something was deleted or replaced"
        assert told(service) == events
    with watch(service) as later:
        service.patch(replicas=4)
        service.kubectl.eventually(
            lambda: service.child("deployment")["spec"]["replicas"],
            lambda replicas: replicas == 4, within_seconds=30, what="what the operator asks the controllers for",
        )  # fmt: skip
        # They come back at their own pace; from then on the operator is not to be waited for either.
        breakable.until_controllers_work()
        service.until(lambda s: s["status"]["readyReplicas"] == 4)
    assert later.replicas == [3, 4]
    assert witness.longest_gap_seconds >= OUTAGE_SECONDS * 0.8, "it was not away"
    assert all(states == ["True"] for states in witness.gates.values()), witness.gates
    assert witness.replicas == [3]
    assert all(len(states) == 1 for states in witness.conditions.values()), witness.conditions
    acting.until_quiet()


def test_pods_that_the_operator_cannot_reach_are_stale_and_nothing_else(
    new_operator: NewOperator, deploy: Deploy, watch: Watch
) -> None:
    operator = new_operator()
    operator.start()
    busy = health_document(busy_fraction=0.9, queued_tokens=500, estimated_drain_time_ms=40.0)
    service = deploy(scaling={"mode": "Internal", "minReplicas": 4, "maxReplicas": 8})
    service.script.health = busy
    service.until(lambda s: s.get("status", {}).get("readyReplicas") == 4)
    operator.until_quiet()
    names = sorted(p["metadata"]["name"] for p in service.pods())
    before, events = unchanged(service), told(service)
    with watch(service) as witness:
        service.script.cut_off.update(names[:2])
        operator.wait_rounds(25)  # several times longer than an answer is believed
        failed = operator.metric("sluice_operator_health_polls_total")['{outcome="failed"}']
        assert failed >= 10
        assert condition(service.get(), "Ready")["status"] == "True"
        assert unchanged(service) == before
        service.script.cut_off.clear()
        operator.until_quiet()
    assert all(states == ["True"] for states in witness.gates.values()), witness.gates
    assert witness.replicas == [4]
    assert witness.least_ready == 4
    assert witness.conditions["Ready"] == ["True/Serving"]
    assert told(service) == events


def test_what_was_deleted_while_a_watch_could_not_go_on_is_noticed(
    new_operator: NewOperator, deploy: Deploy, breakable: ControlPlane
) -> None:
    """The API server forgets what happened before it started: it answers 410 to a watch that wants to know."""
    operator = new_operator(RESYNC_SECONDS="3600")
    operator.start()
    service = serving(deploy, 1)
    operator.until_quiet()
    operator.send(signal.SIGSTOP)
    try:
        service.kubectl.run("delete", "service", "minilm-headless")
        breakable.kill("kube-apiserver")
        breakable.mend()
    finally:
        operator.send(signal.SIGCONT)
    service.kubectl.eventually(
        lambda: service.child("service", "minilm-headless"), bool, within_seconds=60, what="the service, made anew"
    )


@pytest.fixture
def crowd(control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[Callable[[], None]]:
    """Requests in the operator's name that keep the one seat which they share: each waits for a state yet to come."""
    stopped = threading.Event()
    api = api_client(control_plane.kubeconfig)
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{kubectl.namespace}:sluice-operator")

    def ask() -> None:
        while not stopped.is_set():
            # The API server lets such a reader wait for 3 s before it says that there is no such version.
            with contextlib.suppress(ApiException, HTTPError):
                client.CoreV1Api(api).list_namespaced_pod(
                    kubectl.namespace, resource_version=str(2**40), resource_version_match="NotOlderThan",
                    _preload_content=False, _request_timeout=5,
                )  # fmt: skip

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]

    def come() -> None:
        for thread in threads:
            thread.start()

    yield come
    stopped.set()
    for thread in threads:
        if thread.is_alive():
            thread.join(timeout=10)


def test_an_api_server_that_refuses_for_being_too_busy_delays_and_loses_nothing(
    pair: Pair, deploy: Deploy, kubectl: Kubectl, watch: Watch, crowd: Callable[[], None]
) -> None:
    """Priority and fairness with one seat, no queue, and a crowd in it: 429 for most of what the operator asks."""
    service = serving(deploy, 2)
    quiet(*pair)
    before = unchanged(service)
    name = kubectl.namespace
    shares = {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0}
    level = {"type": "Limited", "limited": {**shares, "limitResponse": {"type": "Reject"}}}
    subject = {"kind": "ServiceAccount", "serviceAccount": {"namespace": name, "name": "sluice-operator"}}
    rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    api = "flowcontrol.apiserver.k8s.io/v1"
    with watch(service) as witness:
        kubectl.apply(
            {"apiVersion": api, "kind": "PriorityLevelConfiguration", "metadata": {"name": name}, "spec": level},
            {"apiVersion": api, "kind": "FlowSchema", "metadata": {"name": name}, "spec": {
                "priorityLevelConfiguration": {"name": name}, "matchingPrecedence": 2,
                "rules": [{"subjects": [subject], "resourceRules": [rule]}],
            }},
        )  # fmt: skip
        try:
            crowd()
            service.patch(replicas=3)
            deadline = time.monotonic() + 60
            while not all(one.metric('sluice_operator_kube_errors_total{code="429"}') for one in pair):
                assert time.monotonic() < deadline, "it was not refused"
                time.sleep(0.2)
        finally:
            kubectl.run("delete", "flowschema,prioritylevelconfiguration", name)
        service.until(lambda s: s["status"]["readyReplicas"] == 3, within_seconds=60)
        quiet(*pair)
    assert before.items() <= unchanged(service).items()
    assert witness.replicas == [2, 3]
    assert all(states == ["True"] for states in witness.gates.values())
    assert all(state.startswith("True/") for state in witness.conditions["Available"]), witness.conditions
