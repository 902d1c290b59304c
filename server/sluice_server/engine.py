"""The crank: arrivals and finished batches turn it, and it hands the device its next batch. It never polls.

admit ▶ buckets ▶ next_batch ▶ assemble ▶ worker ▶ deliver
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sluice_server import __version__, admission, health, notifier
from sluice_server.admission import AdmissionLimits, Refuse
from sluice_server.assembly import assemble
from sluice_server.backend import Backend, Batch, ModelInfo
from sluice_server.backpressure import LatencyGate, LatencyWindow
from sluice_server.batcher import BatchLimits, next_batch
from sluice_server.buckets import Buckets
from sluice_server.cost import CostModel, Measurement
from sluice_server.counters import Counters
from sluice_server.drain import drain_seconds
from sluice_server.errors import (
    DeadlineExceededError,
    DeadlineTooShortError,
    DrainingError,
    NotReadyError,
    OverloadedError,
    ServerFailedError,
    SluiceError,
)
from sluice_server.flight import Flight, Underway, tokens_by_bucket
from sluice_server.health import BusyWindow, Phase
from sluice_server.requests import BatchPlan, PendingRequest, Priority, TokenRows, Wait
from sluice_server.worker import MAX_PENDING, BatchResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the engine is told.

    Attributes:
        model_uri: For /health.
        boundaries: Of the buckets, ascending.
        batch_sizes: Fixed ones, ascending.
        admission: What the queue may hold.
        latency_gate: None where latency backpressure is off.
        latency_window_seconds: Over which the P95 is taken.
    """

    model_uri: str
    boundaries: Sequence[int]
    batch_sizes: Sequence[int]
    admission: AdmissionLimits
    latency_gate: LatencyGate | None
    latency_window_seconds: float


class Engine:
    """Owns the queues and what is known of the device. Everything runs on one event loop.

    Args:
        config: What it is told.
        submit: Hands a numbered batch to the device worker; never blocks.
        clock: The event loop's own, in seconds.
    """

    def __init__(
        self,
        config: EngineConfig,
        submit: Callable[[int, Batch], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = Phase("starting", "the server starts")
        self.counters = Counters()
        self.cost = CostModel(tuple(config.boundaries))
        self.info: ModelInfo | None = None
        self.fingerprint: str | None = None
        self.boot_id = uuid.uuid4().hex
        self._config = config
        self._submit = submit
        self._clock = clock
        self._started_at = clock()
        self._buckets = Buckets(config.boundaries)
        self._limits: BatchLimits | None = None
        self._latencies = LatencyWindow(config.latency_window_seconds)
        self._busy = BusyWindow()
        self._reserved_tokens = 0
        self._pending: set[PendingRequest] = set()
        self._flight = Flight()
        self._serving_since: float | None = None
        self._last_forward_at: float | None = None
        self._batches_submitted = 0
        self._turn_scheduled = False
        self._accepts = True
        self._idle_waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._phase_watchers: list[Callable[[Phase], None]] = []

    # --- what the server tells it ---------------------------------------------------------------

    def watch_phase(self, watcher: Callable[[Phase], None]) -> None:
        """Calls the watcher at every change of phase, and now."""
        self._phase_watchers.append(watcher)
        watcher(self.phase)

    def set_phase(self, phase: Phase) -> None:
        """Notes a step in the server's life; a failed server stays failed."""
        if self.phase.name == "failed":
            return
        if phase.name != self.phase.name:
            logger.info("phase %s: %s", phase.name, phase.reason or "", extra={"phase": phase.name})
        self.phase = phase
        for watcher in self._phase_watchers:
            watcher(phase)

    def ready(self, backend: Backend, fingerprint: str, timings: Sequence[Measurement], limits: BatchLimits) -> None:
        """The device is warm: opens the gate."""
        self.info, self.fingerprint, self._limits = backend.info, fingerprint, limits
        self.cost.seed(timings)
        self._last_forward_at = self._serving_since = self._clock()
        self.set_phase(Phase("serving"))

    def failed(self, reason: str) -> None:
        """The server cannot go on: every caller hears it."""
        self.set_phase(Phase("failed", reason))
        for request in tuple(self._pending):
            notifier.fail(request, ServerFailedError(reason))

    def begin_drain(self, reason: str) -> None:
        """The server will end: says so, and goes on serving until stop_accepting()."""
        self.set_phase(Phase("draining", reason))

    def stop_accepting(self) -> None:
        """From now on new work is refused; admitted work goes on."""
        self._accepts = False

    async def wait_idle(self) -> None:
        """Returns once nothing is reserved, queued or running."""
        while not self.is_idle:
            self._idle_waiter = asyncio.get_running_loop().create_future()
            await self._idle_waiter

    # --- what callers ask of it -----------------------------------------------------------------

    def reserve(self, tokens: int, *, priority: Priority, deadline: float) -> None:
        """Admits a request of so many tokens and reserves them, or refuses it.

        Raises:
            SluiceError: Not ready, draining, failed, overloaded, or the deadline is too short.
        """
        self.counters.offered_tokens += tokens
        try:
            self._check_phase()
            self._check_latency(tokens)
            self._check_load(tokens, priority, deadline)
        except SluiceError as error:
            self.counters.reject(getattr(error, "reason", type(error).__name__), tokens)
            raise
        self._reserved_tokens += tokens
        self.counters.admitted_tokens += tokens

    def settle(self, reserved_tokens: int, actual_tokens: int) -> None:
        """Corrects a reservation once the texts are tokens."""
        self._reserved_tokens += actual_tokens - reserved_tokens
        self.counters.admitted_tokens += actual_tokens - reserved_tokens
        self.counters.offered_tokens += actual_tokens - reserved_tokens

    def release(self, tokens: int) -> None:
        """Gives back a reservation whose work will not be computed."""
        self._reserved_tokens -= tokens
        self.counters.expired_tokens += tokens

    async def compute(self, rows: TokenRows, *, priority: Priority, deadline: float) -> PendingRequest:
        """Queues reserved rows and waits until all are computed; consumes the reservation however it ends.

        Args:
            rows: Valid ones.
            priority: Of the request.
            deadline: On the event loop's clock; infinity where there is none.

        Raises:
            DeadlineExceededError: It passed; what was still queued is dropped.
            SluiceError: The batch or the server failed.
        """
        request = self._enqueue(rows, priority, deadline)
        try:
            async with asyncio.timeout_at(None if deadline == float("inf") else deadline):
                await request.future
        except TimeoutError:
            raise DeadlineExceededError("the deadline passed before the work was computed") from None
        finally:
            self._forget(request)
        self._latencies.add(self._clock(), 1000 * (self._clock() - request.arrived_at))
        return request

    # --- what the device tells it ---------------------------------------------------------------

    def on_result(self, number: int, result: BatchResult) -> None:
        """A batch is done: delivers it, learns from it, and turns the crank."""
        now = self._clock()
        # From one answer to the next: what the device's own time leaves out, callers wait for, too.
        lived_seconds = self._flight.running_seconds(now)
        done = self._flight.pop(number, now)
        self._reserved_tokens -= done.plan.tokens
        self._busy.add(result.started_at, result.started_at + result.busy_seconds)
        if result.output is None:
            for part in done.plan.slices:
                notifier.fail(part.request, result.error or ServerFailedError("the batch failed"))
        else:
            self._last_forward_at = now
            self.cost.observe(done.tokens_by_bucket, result.busy_seconds, lived_seconds)
            self.counters.computed_tokens += done.plan.tokens
            self.counters.padded_tokens += result.output.computed_tokens - done.plan.tokens
            notifier.deliver(
                done.plan,
                result.output.embeddings,
                started_at=result.started_at,
                busy_seconds=result.busy_seconds,
            )
        self._turn()

    # --- what it says of itself -----------------------------------------------------------------

    @property
    def reserved_tokens(self) -> int:
        """Admitted and not yet computed, in flight included."""
        return self._reserved_tokens

    def service_rate(self) -> float | None:
        """Tokens per second while the device is busy with full batches; None before anything was measured."""
        return self.cost.full_batch_rate(self._limits.target_seconds) if self._limits else None

    def drain_ms(self) -> float | None:
        """Time until everything reserved is computed; None before anything was measured."""
        if self._limits is None:
            return None
        return 1000 * drain_seconds(
            buckets=self._buckets,
            flight=self._flight,
            reserved_tokens=self._reserved_tokens,
            cost=self.cost,
            limits=self._limits,
            now=self._clock(),
        )

    def facts(self) -> health.Facts:
        """For /health, at this moment."""
        now, limits, gate = self._clock(), self._config.admission, self._config.latency_gate
        return health.Facts(
            phase=self.phase,
            now=now,
            started_at=self._started_at,
            boot_id=self.boot_id,
            version=__version__,
            model_uri=self._config.model_uri,
            queued_tokens=self._reserved_tokens,
            pending_batches=len(self._flight),
            counters=self.counters,
            refusing=self._would_refuse(),
            drain_ms=self.drain_ms(),
            rate=self.service_rate(),
            p95_ms=self._latencies.p95_ms(now),
            busy_fraction=self._busy.fraction(now, self._serving_since),
            last_forward_at=self._last_forward_at,
            max_drain_ms=limits.max_drain_ms,
            p95_soft_limit_ms=gate.soft_p95_ms if gate else None,
            info=self.info,
            fingerprint=self.fingerprint,
        )

    @property
    def has_served(self) -> bool:
        """The gate was open at some time."""
        return self._serving_since is not None

    def running_seconds(self) -> float:
        """How long the batch on the device has been there; 0 where there is none."""
        return self._flight.running_seconds(self._clock())

    @property
    def is_idle(self) -> bool:
        """Nothing is reserved, queued or running."""
        return not self._pending and not len(self._flight) and self._reserved_tokens == 0

    # --- inside ---------------------------------------------------------------------------------

    def _check_phase(self) -> None:
        match self.phase.name:
            case "serving":
                return
            case "draining":
                if not self._accepts:
                    raise DrainingError("the server is shutting down; another one takes new work")
            case "failed":
                raise ServerFailedError(f"the server has failed: {self.phase.reason}")
            case _:
                raise NotReadyError(f"the server is not ready yet: {self.phase.name}, {self.phase.reason}")

    def _check_latency(self, tokens: int) -> None:
        gate = self._config.latency_gate
        if gate is not None and tokens:
            p95_ms = self._latencies.p95_ms(self._clock())
            if gate.refuses(p95_ms):
                raise _refusal("latency", f"the P95 latency is {p95_ms:.0f} ms", round(p95_ms or 0))

    def _check_load(self, tokens: int, priority: Priority, deadline: float) -> None:
        remaining_ms = None if deadline == float("inf") else 1000 * (deadline - self._clock())
        verdict = admission.decide(
            tokens, self._load(tokens), self._config.admission, priority=priority, remaining_ms=remaining_ms
        )
        if isinstance(verdict, Refuse):
            if verdict.reason == "deadline":
                raise DeadlineTooShortError(verdict.message)
            raise _refusal(verdict.reason, verdict.message, verdict.retry_after_ms)

    def _load(self, tokens: int) -> admission.Load:
        rate = self.service_rate()
        own_ms = 1000 * (tokens / rate + self.cost.seconds_per_batch) if rate else None
        return admission.Load(self._reserved_tokens, self.drain_ms(), own_ms)

    def _would_refuse(self) -> bool:
        """Whether a request of one token would be refused for load now."""
        gate = self._config.latency_gate
        verdict = admission.decide(
            1, self._load(1), self._config.admission, priority=Priority.INTERACTIVE, remaining_ms=None
        )
        return isinstance(verdict, Refuse) or (gate is not None and gate.stage == "hard")

    def _enqueue(self, rows: TokenRows, priority: Priority, deadline: float) -> PendingRequest:
        assert self.info is not None, "rows are reserved, so the gate is open"
        count = len(rows.lengths)
        request = PendingRequest(
            rows=rows,
            offsets=np.concatenate(([0], np.cumsum(rows.lengths, dtype=np.int64))),
            result=np.empty((count, self.info.dimension), dtype=np.float32),
            future=asyncio.get_running_loop().create_future(),
            arrived_at=self._clock(),
            deadline=deadline,
            priority=priority,
            unfinished_rows=count,
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
            self.release(dropped)
            self._schedule_turn()
        if self.is_idle and self._idle_waiter is not None and not self._idle_waiter.done():
            self._idle_waiter.set_result(None)

    def _schedule_turn(self) -> None:
        """Turns the crank once per round of the event loop: requests that came together go together."""
        if not self._turn_scheduled:
            self._turn_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_scheduled = False
        try:
            self._feed_device()
        except Exception as error:
            logger.exception("the engine failed")
            self.failed(f"the engine failed: {type(error).__name__}: {error}")

    def _feed_device(self) -> None:
        if self._limits is None:
            return
        while len(self._flight) < MAX_PENDING:
            plan = next_batch(self._buckets, self._limits, self.cost, self._clock(), device_idle=not len(self._flight))
            if isinstance(plan, Wait):
                self._arm_timer(plan.until)
                return
            self._start(plan)

    def _start(self, plan: BatchPlan) -> None:
        tokens = tokens_by_bucket(plan)
        number = self._batches_submitted
        self._batches_submitted += 1
        self._flight.add(number, Underway(plan, tokens, self.cost.batch_seconds(tokens) or 0.0), self._clock())
        self._submit(number, assemble(plan, self._config.batch_sizes))

    def _arm_timer(self, until: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if until is not None:
            delay = max(0.0, until - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._turn)


def _refusal(reason: str, message: str, retry_after_ms: int | None) -> OverloadedError:
    return OverloadedError(message, retry_after_ms, reason)
