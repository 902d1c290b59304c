"""The pure core of a call, as timelines: what is sent when, and what is given out."""

from dataclasses import dataclass, field

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_client.pipeline import Done, Emit, Fail, Pipeline, Pull, Send, Wait
from sluice_client.retry import Failure, RetryBudget, RetryPolicy
from sluice_client.splitting import Part

POLICY = RetryPolicy()


def full(milliseconds: int) -> Failure:
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("grpc-retry-pushback-ms", str(milliseconds)),))


GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone")
BAD = Failure(grpc.StatusCode.INVALID_ARGUMENT, "bad")


@dataclass
class Call:
    """Plays the shell: parts come from a list, and the clock stands until it is moved."""

    parts: int
    window: int = 2
    deadline: float = 100
    part_seconds: float = float("inf")
    now: float = 0.0
    sent: list[int] = field(default_factory=list)
    emitted: list[int] = field(default_factory=list)
    pulled: int = 0

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(
            POLICY,
            RetryBudget(POLICY),
            max_in_flight=self.window,
            deadline=self.deadline,
            part_seconds=self.part_seconds,
        )

    def run(self, *, consume: bool = True) -> Wait | Fail | Done | Emit:
        """Does what is to be done now; stops at the first step that waits, ends, or gives out when not consuming."""
        while True:
            step = self.pipeline.next(self.now)
            if isinstance(step, Send):
                self.sent.append(step.part.index)
                self.last_timeout, self.last_metadata = step.timeout_seconds, step.metadata
            elif isinstance(step, Pull):
                part = None
                if self.pulled < self.parts:
                    part = Part(self.pulled, 10 * self.pulled, ("x",) * 10, None)  # type: ignore[arg-type]
                    self.pulled += 1
                self.pipeline.offer(part)
            elif isinstance(step, Emit) and consume:
                assert step.reply == f"reply {step.part.index}"
                self.emitted.append(step.part.index)
            else:
                return step

    def reply(self, index: int) -> None:
        self.pipeline.on_reply(index, f"reply {index}")

    def fail(self, index: int, failure: Failure, dice: float = 0.0) -> None:
        self.pipeline.on_failure(index, failure, now=self.now, dice=dice)


def test_no_more_than_the_window_is_under_way_and_replies_come_out_in_order() -> None:
    call = Call(parts=4)
    call.run()
    assert call.sent == [0, 1]
    call.reply(1)
    call.run()
    assert (call.sent, call.emitted) == ([0, 1, 2], [])
    call.reply(0)
    call.run()
    assert (call.sent, call.emitted) == ([0, 1, 2, 3], [0, 1])
    call.reply(3)
    call.reply(2)
    assert isinstance(call.run(), Done)
    assert call.emitted == [0, 1, 2, 3]


def test_nothing_to_embed_is_done_at_once() -> None:
    assert isinstance(Call(parts=0).run(), Done)


def test_a_part_that_lags_behind_holds_up_only_so_many() -> None:
    call = Call(parts=100)
    for index in range(1, 4):
        call.run()
        call.reply(index)
    assert isinstance(call.run(), Wait)
    # Twice the window is held: part 0 under way and three answered.
    assert call.pulled == 4


def test_a_refused_part_is_sent_again_when_the_server_asked_for_it_and_not_before() -> None:
    call = Call(parts=1)
    call.run()
    call.fail(0, full(500))
    assert call.run() == Wait(0.5)
    call.now = 0.4
    call.run()
    assert call.sent == [0]
    call.now = 0.5
    call.run()
    assert call.sent == [0, 0]


def test_a_part_says_how_often_it_was_refused_but_not_how_often_its_server_was_away() -> None:
    call = Call(parts=1)
    call.run()
    assert call.last_metadata == ()
    for failure, refusals in ((GONE, 0), (full(10), 1), (full(10), 2), (GONE, 2)):
        call.fail(0, failure)
        call.now += 1
        call.run()
        assert call.last_metadata == (("sluice-refusals", str(refusals)),) * bool(refusals)
    assert call.sent == [0] * 5


def test_a_refused_call_sends_nothing_new_until_the_old_has_gone_through() -> None:
    call = Call(parts=9, window=4)
    call.run()
    for index in range(4):
        call.fail(index, full(100 + index))
    assert isinstance(call.run(), Wait)
    call.now = 1.0
    call.run()
    assert call.sent == [0, 1, 2, 3, 0, 1]  # the window is half of what it was
    call.reply(0)
    call.run()
    assert call.sent[-1] == 2


def test_a_part_that_can_never_be_served_fails_the_call_at_once_and_says_where() -> None:
    call = Call(parts=4)
    call.run()
    call.now = 1.5
    call.fail(1, BAD)
    fail = call.run()
    assert isinstance(fail, Fail)
    assert (fail.part.positions, fail.failure, fail.attempts) == (range(10, 20), BAD, 1)
    assert (fail.seconds, fail.in_time) == (1.5, True)


def test_nothing_is_sent_after_a_failure_and_the_first_failure_counts() -> None:
    call = Call(parts=4)
    call.run()
    call.fail(0, GONE)
    call.fail(1, BAD)
    call.now = 9
    fail = call.run()
    assert isinstance(fail, Fail)
    assert fail.part.index == 1
    assert call.sent == [0, 1]


def test_all_parts_and_retries_share_one_deadline() -> None:
    call = Call(parts=2, window=1, deadline=10)
    call.run()
    assert call.last_timeout == 10
    call.now = 4
    call.fail(0, full(1000))
    call.now = 5
    call.run()
    assert call.last_timeout == 5
    call.now = 8
    call.reply(0)
    call.run()
    assert call.last_timeout == 2


def test_a_part_that_could_only_be_sent_after_the_deadline_fails_the_call() -> None:
    call = Call(parts=2, window=1, deadline=10)
    call.run()
    call.now = 10
    call.reply(0)
    fail = call.run()
    assert isinstance(fail, Fail)
    assert (fail.failure.code, fail.in_time) == (grpc.StatusCode.DEADLINE_EXCEEDED, False)


def test_each_part_of_a_stream_has_its_own_deadline() -> None:
    call = Call(parts=3, window=1, deadline=float("inf"), part_seconds=10)
    call.run()
    call.now = 9
    call.reply(0)
    call.run()
    assert call.last_timeout == 10
    call.fail(1, full(3000))
    call.now = 12
    call.run()
    assert call.last_timeout == 7


def test_a_call_that_grpc_forgets_to_end_is_given_up() -> None:
    call = Call(parts=1, deadline=10)
    call.run()
    call.now = 12.5
    fail = call.run()
    assert isinstance(fail, Fail)
    assert "gRPC did not end the call" in fail.failure.details


def test_reading_and_giving_out_take_turns() -> None:
    call = Call(parts=9)
    call.run()
    call.reply(0)
    assert isinstance(call.run(consume=False), Emit)
    call.run(consume=False)
    assert call.sent == [0, 1, 2]


def test_a_source_that_is_still_being_read_is_not_read_twice() -> None:
    pipeline = Pipeline(POLICY, RetryBudget(POLICY), max_in_flight=2)
    assert pipeline.next(0) == Pull()
    assert pipeline.next(0) == Wait(None)


@given(
    parts=st.integers(0, 30),
    window=st.integers(1, 6),
    choices=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["reply", "full", "gone"])), max_size=200),
)
def test_whatever_happens_every_part_is_given_out_once_and_in_order(
    parts: int, window: int, choices: list[tuple[int, str]]
) -> None:
    call = Call(parts, window, deadline=1e9)
    steps = iter(choices)
    while not isinstance(step := call.run(), Done):
        assert isinstance(step, Wait), step
        under_way = sorted(call.pipeline._in_flight)
        assert len(under_way) <= window
        assert call.pulled - len(call.emitted) <= 2 * window
        place, event = next(steps, (0, "reply"))
        if not under_way:
            assert step.seconds is not None
            call.now += step.seconds
        elif event == "reply":
            call.reply(under_way[place % len(under_way)])
        else:
            call.fail(under_way[place % len(under_way)], full(50) if event == "full" else GONE, dice=0.5)
    assert call.emitted == list(range(parts))


@pytest.mark.parametrize("failure", [full(10), GONE])
def test_a_part_that_succeeded_is_never_sent_again(failure: Failure) -> None:
    call = Call(parts=2)
    call.run()
    call.reply(0)
    call.fail(1, failure)
    call.now = 1
    call.run()
    assert call.sent == [0, 1, 1]
