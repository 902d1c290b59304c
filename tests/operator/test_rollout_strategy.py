"""New pods first where there is room, old ones first where there is none, nothing where that would not help."""

from datetime import timedelta
from typing import Any

import pytest
from sluice_operator.reasons import Reason
from sluice_operator.rollout_strategy import PATIENCE, Strategy, choose, of_deployment, replace, surge
from sluice_operator.values import Pod, Trouble

from tests.operator.builders import WALL_TIME, health, pod, starting_pod

NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
GPU = (("memory", "16Gi"), ("nvidia.com/gpu", "1"))


def old(name: str, **fields: Any) -> Pod:
    return pod(name, says=health(), template_hash="old", **{"requests": GPU, **fields})


def homeless(name: str = "new", *, seconds: float = 31, message: str = NO_GPU, **fields: Any) -> Pod:
    return starting_pod(
        name, is_running=False, trouble=Trouble(Reason.UNSCHEDULABLE, message),
        unscheduled_since=WALL_TIME - timedelta(seconds=seconds), **{"requests": GPU, **fields},
    )  # fmt: skip


def chosen(*pods: Pod, live: Strategy | None = None, replicas: int = 2) -> Strategy:
    return choose(replicas, pods, "current", live or surge(replicas), WALL_TIME)


@pytest.mark.parametrize(
    ("replicas", "added", "removed"), [(0, 1, 1), (1, 1, 1), (4, 1, 1), (8, 2, 1), (10, 2, 1), (40, 10, 4)]
)
def test_larger_services_move_in_larger_steps(replicas: int, added: int, removed: int) -> None:
    assert surge(replicas) == Strategy(added, 0)
    assert replace(replicas) == Strategy(0, removed)


def test_new_pods_come_first_while_they_find_room() -> None:
    assert chosen(old("a"), old("b"), starting_pod("new")) == surge(2)
    assert choose(2, [], "current", None, WALL_TIME) == surge(2)


@pytest.mark.parametrize(
    "message",
    [
        NO_GPU,
        "0/1 nodes are available: 1 Too many pods.",
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.",
        "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints.",
    ],
)
def test_without_room_old_pods_go_first_after_a_while(message: str) -> None:
    assert chosen(old("a"), old("b"), homeless(seconds=5, message=message)) == surge(2)
    late = PATIENCE.total_seconds()
    assert chosen(old("a"), old("b"), homeless(seconds=late, message=message)) == replace(2)


def test_a_single_pod_on_a_full_node_is_replaced_too() -> None:
    assert chosen(old("a"), homeless(), replicas=1) == replace(1)


def test_once_begun_it_stays_so_until_no_old_pod_is_left() -> None:
    moved_in = starting_pod("new", requests=GPU)
    assert chosen(old("b"), moved_in, live=replace(2)) == replace(2)
    assert chosen(pod("new"), pod("newer"), live=replace(2)) == surge(2)


def test_a_new_pod_that_has_found_room_is_waited_for() -> None:
    assert chosen(old("a"), old("b"), starting_pod("warms"), homeless(), replicas=8) == surge(8)


@pytest.mark.parametrize(
    "asked",
    [(("memory", "16Gi"), ("nvidia.com/gpu", "2")), (("memory", "17Gi"), ("nvidia.com/gpu", "1")), (("tpu", "1"),)],
)
def test_no_pod_goes_for_one_that_would_not_fit_in_its_place(asked: Any) -> None:
    assert chosen(old("a"), old("b"), homeless(requests=asked)) == surge(2)
    assert chosen(old("a"), homeless(requests=asked), live=replace(2)) == surge(2)


def test_the_same_amount_in_other_words_fits() -> None:
    assert chosen(old("a"), homeless(requests=(("memory", "16384Mi"), ("nvidia.com/gpu", "1")))) == replace(2)


@pytest.mark.parametrize(
    "message",
    [
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
        'persistentvolumeclaim "models" not found',
    ],
)
def test_no_pod_goes_where_that_makes_no_room(message: str) -> None:
    assert chosen(old("a"), old("b"), homeless(message=message)) == surge(2)


def test_adding_pods_is_no_rollout() -> None:
    assert chosen(pod("a"), homeless()) == surge(2)


def test_what_a_deployment_says() -> None:
    def body(**numbers: Any) -> dict[str, Any]:
        return {"spec": {"strategy": {"rollingUpdate": numbers}}}

    assert of_deployment(body(maxSurge=0, maxUnavailable=1)) == Strategy(0, 1)
    assert of_deployment(body(maxSurge="25%", maxUnavailable=1)) is None
    assert of_deployment({"spec": {"strategy": {"type": "Recreate"}}}) is None
