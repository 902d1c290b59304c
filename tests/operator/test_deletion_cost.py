"""Which pods go first."""

from hypothesis import given
from hypothesis import strategies as st
from sluice_operator.deletion_cost import CHEAP, CostChange, cost_changes
from sluice_operator.values import Pod

from tests.operator.builders import health, pod, starting_pod


def queued(name: str, milliseconds: float | None, cost: int | None = None) -> Pod:
    tokens = 0 if milliseconds == 0 else 100
    return pod(name, says=health(drain_milliseconds=milliseconds, queued_tokens=tokens), deletion_cost=cost)


def test_the_pods_with_least_left_to_compute_go_first() -> None:
    pods = [queued("a", 900.0), queued("b", 100.0), queued("c", 500.0), queued("d", 0.0)]
    assert cost_changes(pods, 2) == [CostChange("d", "uid-d", CHEAP), CostChange("b", "uid-b", CHEAP)]


def test_a_pod_that_does_not_say_may_have_much_to_do() -> None:
    pods = [pod("silent"), queued("unsure", None), queued("busy", 5000.0)]
    assert [c.pod_name for c in cost_changes(pods, 2)] == ["busy"]


def test_where_all_have_the_same_to_do_kubernetes_keeps_them_spread() -> None:
    assert cost_changes([queued(name, 0.0) for name in "abc"], 2) == []
    assert cost_changes([queued("a", 3.0), queued("b", 0.0)], 1) == []


def test_pods_that_are_not_ready_go_first_anyway() -> None:
    pods = [starting_pod("new"), queued("a", 0.0), queued("b", 900.0)]
    assert cost_changes(pods, 2) == []
    assert [c.pod_name for c in cost_changes(pods, 1)] == ["a"]


def test_a_mark_of_an_earlier_time_is_put_right() -> None:
    pods = [queued("a", 900.0, cost=CHEAP), queued("b", 0.0), queued("c", 500.0)]
    assert set(cost_changes(pods, 2)) == {CostChange("b", "uid-b", CHEAP), CostChange("a", "uid-a", None)}
    assert cost_changes([queued("a", 900.0), queued("b", 0.0, cost=CHEAP)], 1) == [], "nothing is written twice"


@given(
    drains=st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=1, max_size=12),
    remaining=st.integers(0, 12),
)
def test_no_pod_that_goes_has_more_to_do_than_one_that_stays(drains: list[float | None], remaining: int) -> None:
    pods = [queued(f"p{i}", drain) for i, drain in enumerate(drains)]
    chosen = {c.pod_uid for c in cost_changes(pods, remaining)}
    assert len(chosen) in {0, max(0, len(pods) - remaining)}

    def work(p: Pod) -> float:
        assert p.report is not None
        drain = p.report.health.drain_milliseconds
        return float("inf") if drain is None else drain

    if chosen:
        assert max(work(p) for p in pods if p.uid in chosen) <= min(
            (work(p) for p in pods if p.uid not in chosen), default=float("inf")
        )
