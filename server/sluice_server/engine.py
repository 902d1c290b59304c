"""The crank: arrivals and finished batches turn it, and it hands the device its next batch. It never polls.

admit ▶ buckets ▶ next_batch ▶ assemble ▶ worker ▶ deliver
"""

import asyncio
import contextlib
import contextvars
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sluice_server import __version__, health, notifier
from sluice_server.assembly import assemble
from sluice_server.backend import Backend, ModelInfo
from sluice_server.batcher import BatchLimits, due, lowered, next_batch
from sluice_server.buckets import Buckets
from sluice_server.cost import CostModel, Measurement
from sluice_server.counters import Counters
from sluice_server.errors import DeadlineExceededError, ServerFailedError, SluiceError
from sluice_server.estimates import Estimates
from sluice_server.flight import MAX_PENDING, Flight, Underway, tokens_by_bucket
from sluice_server.health import BusyWindow, Phase
from sluice_server.intake import Intake, IntakeConfig
from sluice_server.jobs import BatchResult, Job
from sluice_server.lifecycle import Lifecycle
from sluice_server.requests import NO_DEADLINE, BatchPlan, PendingRequest, Priority, Terms, TokenRows

logger = logging.getLogger(__name__)

_LATE = "the deadline passed before the work was computed"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the engine is told.

    Attributes:
        model_uri: For /health.
        boundaries: Of the buckets, ascending.
        batch_sizes: Fixed ones, ascending.
        intake: What may be taken in.
        max_batches_at_device: Running and prefetched.
    """

    model_uri: str
    boundaries: Sequence[int]
    batch_sizes: Sequence[int]
    intake: IntakeConfig
    max_batches_at_device: int = MAX_PENDING


class Engine:
    """Owns the queues and what is known of the device. Everything runs on one event loop.

    Args:
        config: What it is told.
        submit: Hands a batch to the device worker; never blocks.
        clock: The event loop's own, in seconds.
    """

    def __init__(
        self, config: EngineConfig, submit: Callable[[Job], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lifecycle = Lifecycle()
        self.counters = Counters()
        self.cost = CostModel(tuple(config.boundaries))
        self.backend: Backend | None = None
        self.info: ModelInfo | None = None
        self.fingerprint: str | None = None
        self.boot_id = uuid.uuid4().hex
        self._config = config
        self._submit = submit
        self._clock = clock
        self._started_at = clock()
        self._intake = Intake(config.intake, self.counters)
        self._buckets = Buckets(config.boundaries)
        self._busy = BusyWindow()
        self._pending: set[PendingRequest] = set()
        self._flight = Flight(config.max_batches_at_device)
        self._estimates = Estimates(self._buckets, self._flight, self.cost)
        self._serving_since: float | None = None
        self._last_forward_at: float | None = None
        self._batches_submitted = 0
        self._turn_scheduled = False
        self._idle_waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # The crank turns for everybody: its log lines bear no caller's request id.
        self._nobodys = contextvars.Context()

    # --- what the server tells it ---------------------------------------------------------------

    def ready(self, backend: Backend, fingerprint: str, timings: Sequence[Measurement], limits: BatchLimits) -> None:
        """The device is warm: opens the gate."""
        self.backend, self.info = backend, backend.info
        self.fingerprint, self._estimates.limits = fingerprint, limits
        self.cost.seed(timings)
        self._last_forward_at = self._serving_since = self._clock()
        self.lifecycle.enter(Phase("serving"))

    def failed(self, reason: str) -> None:
        """The server cannot go on: every caller hears it."""
        self.lifecycle.enter(Phase("failed", reason))
        for request in tuple(self._pending):
            notifier.fail(request, ServerFailedError(reason))

    async def wait_idle(self) -> None:
        """Returns once nothing is reserved, queued or running."""
        while not self.is_idle:
            self._idle_waiter = asyncio.get_running_loop().create_future()
            await self._idle_waiter

    # --- what callers ask of it -----------------------------------------------------------------

    def reserve(self, tokens: int, terms: Terms) -> None:
        """Admits a request of so many tokens and reserves them, or refuses it; a repeated one is no new demand.

        Raises:
            SluiceError: Not ready, draining, failed, overloaded, or the deadline is too short.
        """
        now = self._clock()
        self.counters.ask(tokens, is_repeated=terms.is_repeated)
        try:
            self.lifecycle.check_accepts()
            load = self._estimates.load(tokens, terms.priority, self.reserved_tokens, now)
            self._intake.admit(tokens, load, terms, now)
        except SluiceError as error:
            self.counters.reject(getattr(error, "reason", type(error).__name__), tokens)
            raise

    def settle(self, reserved_tokens: int, actual_tokens: int, *, is_repeated: bool = False) -> None:
        """Corrects a reservation once the texts are tokens."""
        self._intake.settle(reserved_tokens, actual_tokens, is_repeated=is_repeated)

    def release(self, tokens: int) -> None:
        """Gives back a reservation whose work will not be computed."""
        self._intake.drop(tokens)

    def compute(self, rows: TokenRows, terms: Terms) -> Awaitable[PendingRequest]:
        """Queues reserved rows at once; what is returned must be awaited, and consumes the reservation however it ends.

        Args:
            rows: Valid ones.
            terms: Those on which they were reserved.

        Returns:
            The request, awaited until all are computed.

        Raises:
            DeadlineExceededError: It passed; what was still queued is dropped.
            SluiceError: The batch or the server failed.
        """
        return self._computed(self.begin(rows, terms))

    def begin(self, rows: TokenRows, terms: Terms) -> PendingRequest:
        """Queues reserved rows, as compute() does, for a caller that needs no task: finish() must follow the future."""
        request = self._enqueue(rows, terms)
        if terms.deadline != NO_DEADLINE:
            late = DeadlineExceededError(_LATE)
            request.expiry = asyncio.get_running_loop().call_at(terms.deadline, notifier.fail, request, late)
        return request

    def finish(self, request: PendingRequest) -> None:
        """The request's future is done, however: what is left of its reservation is given back."""
        if request.expiry is not None:
            request.expiry.cancel()
        self._forget(request)
        if not request.future.cancelled() and request.future.exception() is None:
            now = self._clock()
            self._intake.note_latency(now, 1000 * (now - request.arrived_at))

    # --- what the device tells it ---------------------------------------------------------------

    def on_result(self, number: int, result: BatchResult) -> None:
        """A batch is done: delivers it, turns the crank, and learns from it."""
        with self._failing_loudly():
            self._take_result(number, result)

    def _take_result(self, number: int, result: BatchResult) -> None:
        now = self._clock()
        # From one answer to the next: what the device's own time leaves out, callers wait for, too.
        lived_seconds = self._flight.running_seconds(now)
        done = self._flight.pop(number, now)
        self._intake.complete(done.plan.tokens)
        self._busy.add(result.started_at, result.started_at + result.busy_seconds, done.plan.tokens)
        if result.too_large_tokens is not None:
            self._lower_limits(result.too_large_tokens)
        if result.output is None:
            for part in done.plan.slices:
                notifier.fail(part.request, result.error or ServerFailedError("the batch failed"))
            if result.lost is not None:
                self.failed(result.lost)
        else:
            self._last_forward_at = now
            self._count(done.plan, result)
            if result.left_out is not None:
                notifier.fail_rows(done.plan, result.left_out, DeadlineExceededError(_LATE))
            notifier.deliver(
                done.plan,
                result.output.embeddings,
                started_at=result.started_at,
                busy_seconds=result.busy_seconds,
            )
            if result.left_out is None:
                # Once those are answered who wait.
                learn = partial(self.cost.observe, done.tokens_by_bucket, result.busy_seconds, lived_seconds)
                asyncio.get_running_loop().call_soon(learn, context=self._nobodys)
        self._turn()
        # Estimated once for all who are answered now; the last of them leave some milliseconds later.
        drain_ms = self.drain_ms()
        drained_at = None if drain_ms is None else self._clock() + drain_ms / 1000
        for part in done.plan.slices:
            part.request.drained_at = drained_at
        self._note_idle()

    # --- what it says of itself -----------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Where in its life the server is."""
        return self.lifecycle.phase

    @property
    def reserved_tokens(self) -> int:
        """Admitted and not yet computed, in flight included."""
        return self._intake.reserved_tokens

    def drain_ms(self) -> float | None:
        """Time until all that is reserved is computed; None before anything was measured."""
        now = self._clock()
        return self._estimates.drain_ms(
            self.reserved_tokens, now, self._busy.tokens_per_second(now, self._serving_since)
        )

    def ahead_ms(self) -> float | None:
        """What an interactive request that came now would wait for others; None before anything was measured."""
        return self._estimates.load(0, Priority.INTERACTIVE, self.reserved_tokens, self._clock()).ahead_ms

    def drain_left_ms(self, request: PendingRequest) -> float | None:
        """Of the drain time as it was estimated when the request's last batch was done: what is left of it now."""
        return None if request.drained_at is None else max(0.0, 1000 * (request.drained_at - self._clock()))

    def facts(self) -> health.Facts:
        """For /health, at this moment."""
        now = self._clock()
        would_meet = self._estimates.load(1, Priority.INTERACTIVE, self.reserved_tokens, now)
        return health.Facts(
            phase=self.phase,
            now=now,
            started_at=self._started_at,
            boot_id=self.boot_id,
            version=__version__,
            model_uri=self._config.model_uri,
            queued_tokens=self.reserved_tokens,
            pending_batches=len(self._flight),
            counters=self.counters,
            refusing=self._intake.would_refuse(would_meet, now),
            drain_ms=self.drain_ms(),
            rate=self._estimates.service_rate(),
            p95_ms=self._intake.p95_ms(now),
            accept_wait_ms=self._intake.accept_wait_ms(now),
            busy_fraction=self._busy.fraction(now, self._serving_since),
            last_forward_at=self._last_forward_at,
            max_drain_ms=self._intake.max_drain_ms,
            p95_soft_limit_ms=self._intake.soft_p95_ms,
            info=self.info,
            fingerprint=self.fingerprint,
        )

    def running_seconds(self) -> float:
        """How long the batch on the device has been there; 0 where there is none."""
        return self._flight.running_seconds(self._clock())

    @property
    def is_idle(self) -> bool:
        """Nothing is reserved, queued or running."""
        return not self._pending and not len(self._flight) and self.reserved_tokens == 0

    # --- inside ---------------------------------------------------------------------------------

    async def _computed(self, request: PendingRequest) -> PendingRequest:
        try:
            await request.future
        finally:
            self.finish(request)
        return request

    def _enqueue(self, rows: TokenRows, terms: Terms) -> PendingRequest:
        limits = self._estimates.limits
        assert limits is not None, "rows are reserved, so the gate is open"
        now, deadline = self._clock(), terms.deadline
        due_at = due(limits, self._estimates.service_rate(), arrived_at=now, deadline=deadline, priority=terms.priority)
        request = PendingRequest(
            rows=rows,
            offsets=rows.offsets(),
            future=asyncio.get_running_loop().create_future(),
            arrived_at=now,
            deadline=deadline,
            due=due_at,
            priority=terms.priority,
            unfinished_rows=len(rows.lengths),
        )
        self._pending.add(request)
        self._buckets.add(request)
        self._schedule_turn()
        return request

    def _forget(self, request: PendingRequest) -> None:
        """Drops what is still queued of a request that ended, for whatever reason."""
        self._pending.discard(request)
        dropped = self._buckets.forget(request)
        if dropped:
            self._intake.drop(dropped)
            self._schedule_turn()
        self._note_idle()

    def _note_idle(self) -> None:
        if self.is_idle and self._idle_waiter is not None and not self._idle_waiter.done():
            self._idle_waiter.set_result(None)

    def _schedule_turn(self) -> None:
        """Turns the crank once per round of the event loop: requests that came together go together."""
        if not self._turn_scheduled:
            self._turn_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn, context=self._nobodys)

    def _turn(self) -> None:
        self._turn_scheduled = False
        with self._failing_loudly():
            self._feed_device()

    @contextlib.contextmanager
    def _failing_loudly(self) -> Iterator[None]:
        """A fault of the engine's own ends the service: nobody is left to wait for what will not come."""
        try:
            yield
        except Exception as error:
            logger.exception("the engine failed")
            self.failed(f"the engine failed: {type(error).__name__}: {error}")

    def _feed_device(self) -> None:
        self._disarm_timer()
        limits = self._estimates.limits
        # With nothing queued there is nothing to wake up for: who comes turns the crank.
        while limits is not None and self._buckets.queued_tokens:
            feed_at = self._flight.feed_at(now := self._clock())
            if feed_at is None:
                return
            if feed_at > now:
                self._timer = asyncio.get_running_loop().call_later(feed_at - now, self._turn, context=self._nobodys)
                return
            plan = next_batch(self._buckets, limits, self.cost, now)
            if plan is None:
                return
            self._start(plan, now)

    def _start(self, plan: BatchPlan, now: float) -> None:
        tokens = tokens_by_bucket(plan)
        number = self._batches_submitted
        self._batches_submitted += 1
        self._flight.add(number, Underway(plan, tokens, self.cost.batch_seconds(tokens) or 0.0), now)
        self._submit(Job(number, assemble(plan, self._config.batch_sizes), plan.left_out))

    def _count(self, plan: BatchPlan, result: BatchResult) -> None:
        assert result.output is not None, "of a failed batch nothing was computed"
        left_out = 0 if result.left_out is None else _tokens_of(plan, result.left_out)
        computed = plan.tokens - left_out
        self.counters.computed_tokens += computed
        self.counters.expired_tokens += left_out
        self.counters.padded_tokens += result.output.computed_tokens - computed

    def _lower_limits(self, failed_tokens: int) -> None:
        limits = self._estimates.limits
        assert limits is not None, "a batch was computed, so its limits are known"
        less = lowered(limits, failed_tokens=failed_tokens, longest_row=self._config.boundaries[-1])
        self._estimates.limits = less
        logger.warning(
            "out of device memory at %d tokens: from now on a batch holds at most %d",
            failed_tokens,
            less.max_tokens,
        )

    def _disarm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _tokens_of(plan: BatchPlan, rows: NDArray[np.bool_]) -> int:
    lengths = np.concatenate([part.request.rows.lengths[part.indices] for part in plan.slices])
    return int(lengths[rows].sum())
