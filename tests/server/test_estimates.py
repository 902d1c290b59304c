"""What the queue says of time is remembered while it stays true, and no longer."""

from hypothesis import given
from hypothesis import strategies as st
from sluice_server.batcher import due, next_batch
from sluice_server.buckets import Buckets
from sluice_server.estimates import Estimates
from sluice_server.flight import Flight, Underway, tokens_by_bucket
from sluice_server.requests import Priority

from tests.fakes import NEVER, PACKED_LIMITS, pending, steady_cost

BOUNDARIES = (16, 32, 64)
ARRIVES = st.tuples(
    st.just("arrives"), st.lists(st.integers(3, 64), min_size=1, max_size=20), st.sampled_from(list(Priority))
)
WAITS = st.tuples(st.just("waits"), st.floats(0.001, 3.0), st.none())
STARTS = st.tuples(st.just("starts"), st.none(), st.none())
ENDS = st.tuples(st.just("ends"), st.floats(0.5, 2.0), st.none())
LEAVES = st.tuples(st.just("leaves"), st.none(), st.none())


class Device:
    """Queues and batches that come and go, and two who estimate: one from the start, one anew each time."""

    def __init__(self) -> None:
        self.now, self.number = 0.0, 0
        self.buckets, self.flight = Buckets(BOUNDARIES), Flight()
        self.cost = steady_cost(BOUNDARIES, tokens_per_second=10_000, fixed_seconds=0.005)
        self.requests: list = []
        self.remembering = self.new_estimates()

    def new_estimates(self) -> Estimates:
        made = Estimates(self.buckets, self.flight, self.cost)
        made.limits = PACKED_LIMITS
        return made

    def arrives(self, lengths: list[int], priority: Priority) -> None:
        when = due(PACKED_LIMITS, 10_000, arrived_at=self.now, deadline=NEVER, priority=priority)
        request = pending(lengths, due=when, priority=priority, arrived_at=self.now)
        self.buckets.add(request)
        self.requests.append(request)

    def waits(self, seconds: float, _: None) -> None:
        self.now += seconds

    def starts(self, _: None, __: None) -> None:
        plan = next_batch(self.buckets, PACKED_LIMITS, self.cost, self.now) if len(self.flight) < 2 else None
        if plan is not None:
            tokens = tokens_by_bucket(plan)
            self.flight.add(self.number, Underway(plan, tokens, self.cost.batch_seconds(tokens) or 0.0), self.now)
            self.number += 1

    def ends(self, slowness: float, _: None) -> None:
        if len(self.flight):
            done = self.flight.pop(self.number - len(self.flight), self.now)
            self.cost.observe(done.tokens_by_bucket, slowness * done.expected_seconds, done.expected_seconds)

    def leaves(self, _: None, __: None) -> None:
        if self.requests:
            self.buckets.forget(self.requests.pop())


@given(st.lists(ARRIVES | WAITS | STARTS | ENDS | LEAVES, max_size=30))
def test_whatever_comes_and_goes_the_estimate_is_as_if_made_anew(steps: list) -> None:
    device = Device()
    for name, first, second in steps:
        getattr(device, name)(first, second)
        anew = device.new_estimates()
        reserved = device.buckets.queued_tokens + device.flight.tokens
        for priority in Priority:
            loads = [one.load(10, priority, reserved, device.now) for one in (device.remembering, anew)]
            assert loads[0] == loads[1]
        drains = [one.drain_ms(reserved, device.now, 500.0) for one in (device.remembering, anew)]
        assert drains[0] == drains[1]
