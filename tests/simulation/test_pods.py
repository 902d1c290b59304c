"""Queues keep their books: nothing appears, nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.clients import Clients
from simulation.pods import DRAIN_LIMIT_SECONDS, Pods
from simulation.runs import reversals
from simulation.traffic import REQUEST_TOKENS


class Bench:
    """A few pods under given arrivals: requests in each quarter of a second."""

    def __init__(self, arrivals: list[int], *, rates: tuple[float, ...] = (10_000.0,), retries: bool = False) -> None:
        self.clients = Clients(np.array(arrivals, dtype=np.int64), retries=retries, measure_from_step=0)
        self.pods = Pods(np.random.default_rng(0))
        self.pods.rebuild(range(len(rates)), rates, range(len(rates)))
        self.seconds = len(arrivals) // 4

    def play(self) -> "Bench":
        self.queues = [self.pods.serve(s, self.clients) and self.pods.queued.copy() for s in range(self.seconds)]
        return self


def test_what_fits_is_answered_in_time() -> None:
    bench = Bench([2, 2, 3, 2] * 20).play()
    assert (bench.clients.share, bench.clients.refusals) == (1.0, 0)
    assert bench.pods.busy_fraction(10)[0] == pytest.approx(0.9, abs=0.03)


def test_a_full_queue_refuses_and_what_it_takes_is_late() -> None:
    bench = Bench([5] * 80).play()
    limit = 10_000 * DRAIN_LIMIT_SECONDS
    assert limit - REQUEST_TOKENS < bench.pods.queued[0] <= limit
    assert bench.clients.refusals == pytest.approx(5 * 80 - 2.5 * 80 - 15, abs=2)
    assert bench.clients.share < 0.2


def test_refused_clients_come_again_twice_and_count_once() -> None:
    bench = Bench([40, 0, 0, 0] + [0] * 36, retries=True).play()
    assert bench.clients.asked == 40
    assert bench.pods.offered[0] == pytest.approx(40 * REQUEST_TOKENS)
    assert bench.clients.refusals > 40, "repetitions are refused, too"
    assert 0 < bench.clients.share < 1


def test_without_a_pod_everything_is_refused() -> None:
    bench = Bench([3] * 8, rates=()).play()
    assert (bench.clients.refusals, bench.clients.share) == (24, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 30), min_size=8, max_size=48).map(lambda a: a[: len(a) // 4 * 4]),
    rates=st.lists(st.sampled_from([5_000.0, 10_000.0]), min_size=1, max_size=4),
)
def test_no_request_appears_or_is_lost(arrivals: list[int], rates: list[float]) -> None:
    bench = Bench(arrivals, rates=tuple(rates)).play()
    offered, refused = bench.pods.offered.sum() / REQUEST_TOKENS, bench.clients.refusals
    assert offered == sum(arrivals) == bench.clients.asked
    assert 0 <= refused <= offered
    assert 0 <= bench.clients.in_time <= offered - refused + 1e-6
    capacity = sum(rates) * bench.seconds
    assert (offered - refused) * REQUEST_TOKENS - bench.pods.queued.sum() <= capacity + 1e-6
    assert all((queue <= bench.pods.rate * DRAIN_LIMIT_SECONDS + 1e-6).all() for queue in bench.queues)


@settings(max_examples=40, deadline=None)
@given(arrivals=st.lists(st.integers(0, 4), min_size=20, max_size=60).map(lambda a: a[: len(a) // 4 * 4]))
def test_the_closed_form_is_the_recursion(arrivals: list[int]) -> None:
    bench = Bench(arrivals).play()
    queued = 0.0
    for asked in arrivals:
        queued = max(0.0, queued + asked * REQUEST_TOKENS - 2_500)
    if bench.clients.refusals == 0:
        assert bench.pods.queued[0] == pytest.approx(queued)


def test_pods_keep_their_queues_when_others_join_or_leave() -> None:
    bench = Bench([5] * 8).play()
    queued = bench.pods.queued[0]
    bench.pods.rebuild([7, 0], [10_000.0, 10_000.0], [0, 1])
    assert list(bench.pods.queued) == [0, queued]
    bench.pods.rebuild([0], [10_000.0], [0])
    assert list(bench.pods.queued) == [queued]


def test_reversals_are_changes_of_direction() -> None:
    assert reversals([4, 4, 5, 5, 6]) == 0
    assert reversals([4, 5, 5, 4, 4, 3, 5]) == 2
