"""One call of many parts: what to do next, told by values. Pure: the shells send, wait and read the clock.

A part is pulled only when the window has room, travels until it is answered or refused for good, and is
given out at its place in the order. Whatever waits is bounded: at most twice the largest window of parts
is held, however long the input is.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import grpc

from sluice_client.retry import Failure, GiveUp, RetryBudget, RetryPolicy, after_failure
from sluice_client.splitting import Part
from sluice_client.window import Window

# gRPC ends a call at its deadline; a call that outlives it by so much is given up here.
_OVERDUE_SECONDS = 2.0
# A timer may fire so much too early.
_TIMER_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Send:
    """Send this part; it must be answered within so many seconds.

    Attributes:
        refusals: How often a server under pressure refused it before.
    """

    part: Part
    timeout_seconds: float
    refusals: int = 0

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """By which the service tells what is asked again from what more is wanted."""
        return (("sluice-refusals", str(self.refusals)),) if self.refusals else ()


@dataclass(frozen=True, slots=True)
class Pull:
    """Read the next part of the input, and offer it."""


@dataclass(frozen=True, slots=True)
class Emit:
    """The next part in order is answered."""

    part: Part
    reply: Any


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until a part is answered or so many seconds are over; None where only the input is awaited."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Fail:
    """A part was refused for good: the others are to be cancelled.

    Attributes:
        part: The one.
        failure: Its last.
        attempts: How often it was sent.
        reason: Why it is not sent again; empty where that would not help.
        seconds: Since it was first sent.
        in_time: It failed before its deadline, so that the server has said why.
    """

    part: Part
    failure: Failure
    attempts: int
    reason: str
    seconds: float
    in_time: bool


@dataclass(frozen=True, slots=True)
class Done:
    """All parts were given out."""


@dataclass(slots=True)
class _Flight:
    part: Part
    deadline: float | None = None
    attempts: int = 0
    refusals: int = 0
    first_sent_at: float = 0.0
    sent_at: float = 0.0


class Pipeline:
    """The state of one call.

    Args:
        policy: Of the retries.
        budget: Of the client.
        max_in_flight: Requests under way at once.
        deadline: Of all parts together, on the caller's clock.
        part_seconds: From the first time that a part is sent until it is answered, retries included.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        *,
        max_in_flight: int,
        deadline: float = float("inf"),
        part_seconds: float = float("inf"),
    ) -> None:
        self._policy, self._budget = policy, budget
        self._deadline, self._part_seconds = deadline, part_seconds
        self._window = Window(max_in_flight)
        self._in_flight: dict[int, _Flight] = {}
        self._to_send: list[tuple[float, int, _Flight]] = []  # a heap: due time, index
        self._answers: dict[int, Emit] = {}
        self._pulled = self._emitted = 0
        self._pulling = self._exhausted = self._emitted_last = False
        self._fail: Fail | None = None

    def next(self, now: float) -> Send | Pull | Emit | Wait | Fail | Done:
        """What to do now; ask again after each thing done or heard."""
        self._give_up_overdue(now)
        if self._fail is None and self._to_send and self._to_send[0][0] <= now and self._has_room():
            send = self._send(now)
            if send is not None:
                return send
        if self._fail is not None:
            return self._fail
        may_pull = self._may_pull()
        # Reading and giving out take turns: neither a slow reader nor a slow source holds the other up.
        if self._emitted in self._answers and not (self._emitted_last and may_pull):
            self._emitted_last = True
            self._emitted += 1
            return self._answers.pop(self._emitted - 1)
        if may_pull:
            self._emitted_last, self._pulling = False, True
            return Pull()
        if self._exhausted and self._emitted == self._pulled:
            return Done()
        return Wait(self._seconds_to_wait(now))

    def offer(self, part: Part | None) -> None:
        """The answer to Pull; None where the input has ended."""
        self._pulling = False
        if part is None:
            self._exhausted = True
            return
        self._pulled += 1
        heapq.heappush(self._to_send, (float("-inf"), part.index, _Flight(part)))

    def on_reply(self, index: int, reply: Any) -> None:
        """The part was answered."""
        flight = self._in_flight.pop(index)
        self._budget.on_success()
        self._window.on_success()
        self._answers[index] = Emit(flight.part, reply)

    def on_failure(self, index: int, failure: Failure, *, now: float, dice: float) -> None:
        """The part was refused, or its server went away: it is sent again later, or the call fails."""
        flight = self._in_flight.pop(index)
        if failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            flight.refusals += 1
            self._window.on_refusal(flight.sent_at, now)
        verdict = after_failure(
            failure,
            attempt=flight.attempts,
            remaining_seconds=_deadline(flight) - now,
            budget=self._budget,
            policy=self._policy,
            dice=dice,
        )
        if isinstance(verdict, GiveUp):
            self._failed(flight, failure, verdict.reason, now)
        else:
            heapq.heappush(self._to_send, (now + verdict.seconds, index, flight))

    def _send(self, now: float) -> Send | None:
        _, index, flight = heapq.heappop(self._to_send)
        if flight.deadline is None:
            flight.deadline = min(self._deadline, now + self._part_seconds)
            flight.first_sent_at = now
        if flight.deadline <= now:
            self._failed(flight, _late("the deadline passed before it could be sent"), "", now)
            return None
        flight.attempts += 1
        flight.sent_at = now
        self._in_flight[index] = flight
        return Send(flight.part, flight.deadline - now, flight.refusals)

    def _give_up_overdue(self, now: float) -> None:
        for flight in self._in_flight.values():
            if now > _deadline(flight) + _OVERDUE_SECONDS:
                self._failed(flight, _late("gRPC did not end the call at its deadline"), "", now)

    def _failed(self, flight: _Flight, failure: Failure, reason: str, now: float) -> None:
        """The first failure counts."""
        self._fail = self._fail or Fail(
            flight.part,
            failure,
            flight.attempts,
            reason,
            seconds=now - flight.first_sent_at,
            in_time=now < _deadline(flight) - _TIMER_SECONDS,
        )

    def _has_room(self) -> bool:
        return len(self._in_flight) < self._window.size

    def _may_pull(self) -> bool:
        """Parts that wait to be sent again count: a refused client sends nothing new."""
        under_way = len(self._in_flight) + len(self._to_send)
        held = self._pulled - self._emitted
        return (
            not (self._exhausted or self._pulling) and under_way < self._window.size and held < 2 * self._window.largest
        )

    def _seconds_to_wait(self, now: float) -> float | None:
        moments = [_deadline(flight) + _OVERDUE_SECONDS for flight in self._in_flight.values()]
        if self._to_send and self._has_room():
            moments.append(self._to_send[0][0])
        return max(0.0, min(moments) - now) if moments else None


def _late(details: str) -> Failure:
    return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, details)


def _deadline(flight: _Flight) -> float:
    assert flight.deadline is not None, "it was sent"
    return flight.deadline
