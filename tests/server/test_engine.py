"""The crank, on a loop of its own with a device that answers when the test says so."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_server import notifier
from sluice_server.admission import AdmissionLimits
from sluice_server.assembly import keep_rows
from sluice_server.backend import Batch, BatchOutput, ModelInfo
from sluice_server.cost import Measurement
from sluice_server.engine import Engine, EngineConfig
from sluice_server.errors import (
    BatchFailedError,
    DeadlineExceededError,
    DeadlineTooShortError,
    DrainingError,
    NotReadyError,
    OverloadedError,
    ServerFailedError,
)
from sluice_server.health import Phase
from sluice_server.intake import IntakeConfig
from sluice_server.jobs import BatchResult, Job
from sluice_server.requests import PendingRequest, Priority, Terms

from tests.fakes import NEVER, SMALL_PACKED_LIMITS, token_rows

BOUNDARIES = (16, 64)
INFO = ModelInfo("m", None, 2, 64, 64, 30_000, "float32", "cpu", "packed", "mean", {})


@dataclass(slots=True)
class Device:
    """A device that keeps its batches until it is told to answer; a row's embedding is (first id, length)."""

    info = INFO
    waiting: list[Job] = field(default_factory=list)
    engine: Engine | None = None
    submitted: asyncio.Event = field(default_factory=asyncio.Event)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)
        self.submitted.set()

    async def holds_two_batches(self) -> None:
        async with asyncio.timeout(5):
            while len(self.waiting) < 2:
                self.submitted.clear()
                await self.submitted.wait()

    def answer(
        self, *, error: BatchFailedError | None = None, too_large: int | None = None, lost: str | None = None
    ) -> Batch:
        job = self.waiting.pop(0)
        batch, missing = job.batch, job.left_out(asyncio.get_running_loop().time())
        left_out = np.zeros(len(batch.lengths), dtype=bool) if missing is None else missing
        firsts = batch.token_ids[np.cumsum(batch.lengths) - batch.lengths]
        embeddings = np.stack([firsts, batch.lengths], axis=1).astype(np.float32)
        embeddings[left_out] = 0
        computed = batch.useful_tokens - int(batch.lengths[left_out].sum())
        output = None if error else BatchOutput(embeddings, computed + 3)
        assert self.engine is not None
        result = BatchResult(output, error, 0.0, computed / 10_000, missing, too_large, lost)
        self.engine.on_result(job.number, result)
        return batch if missing is None else keep_rows(batch, ~left_out)


def new_engine(*, drain_ms: float = 2000) -> tuple[Engine, Device]:
    device = Device()
    config = EngineConfig("m", BOUNDARIES, (8, 64), IntakeConfig(AdmissionLimits(drain_ms, 10_000), None, 1.0))
    device.engine = Engine(config, device.submit, clock=lambda: asyncio.get_running_loop().time())
    return device.engine, device


def open_gate(engine: Engine, device: Device) -> None:
    timings = [Measurement(b, tokens, tokens / 10_000) for b in BOUNDARIES for tokens in (10, 1000)]
    engine.ready(device, "f", timings, SMALL_PACKED_LIMITS)  # type: ignore[arg-type]


@pytest.fixture
async def serving() -> AsyncIterator[tuple[Engine, Device]]:
    engine, device = new_engine()
    open_gate(engine, device)
    yield engine, device
    assert engine.reserved_tokens == sum(job.batch.useful_tokens for job in device.waiting)


def ask(engine: Engine, lengths: list[int], *, deadline: float = NEVER) -> asyncio.Task:
    """A caller, as the APIs are: admitted and queued in one step."""

    async def call() -> PendingRequest:
        rows = token_rows(lengths)
        terms = Terms(deadline=deadline)
        engine.reserve(rows.total_tokens, terms)
        return await engine.compute(rows, terms)

    return asyncio.create_task(call())


def pooled(request: PendingRequest) -> list[list[float]]:
    assert request.result is not None
    rows: list[list[float]] = request.result.pooled.tolist()
    return rows


async def turn(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_requests_of_one_moment_share_a_batch_and_each_gets_its_own_rows(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    first, second = ask(engine, [3, 20]), ask(engine, [4])
    await turn()
    assert len(device.waiting) == 1
    device.answer()
    assert pooled(await first) == [[5, 3], [8, 20]]
    assert pooled(await second) == [[5, 4]]


async def test_a_request_larger_than_a_batch_is_put_together_again_in_order(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    lengths = [60, 3, 50, 16, 17] * 40
    asked = ask(engine, lengths)
    batches = 0
    while not asked.done():
        await turn()
        device.answer()
        await turn()
        batches += 1
    assert batches > 5, "none is longer than 800 tokens"
    starts = 5 + np.cumsum([0, *lengths[:-1]])
    assert pooled(await asked) == [[float(s), float(n)] for s, n in zip(starts, lengths, strict=True)]


async def test_a_batch_that_holds_rows_of_two_buckets_is_lived_through_once(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    asked = ask(engine, [3, 60])
    await turn()
    device.answer()
    assert (await asked).compute_seconds == pytest.approx(63 / 10_000)


async def test_batch_work_is_never_ahead_of_a_person_not_even_in_the_moment_in_which_it_is_admitted(
    serving: tuple[Engine, Device],
) -> None:
    engine, device = serving
    rows, terms = token_rows([50] * 20), Terms(Priority.BATCH)
    engine.reserve(rows.total_tokens, terms)
    computing = engine.compute(rows, terms)
    assert engine.ahead_ms() == pytest.approx(0, abs=1)
    asked = asyncio.ensure_future(computing)
    while not asked.done():
        await turn()
        device.answer()
        await turn()


async def test_a_batch_is_learned_from_once_its_callers_have_their_answers(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    rows, before = token_rows([50] * 4), engine.cost.changes

    async def learned_when_answered() -> int:
        engine.reserve(rows.total_tokens, Terms())
        await engine.compute(rows, Terms())
        return engine.cost.changes

    asked = asyncio.create_task(learned_when_answered())
    await turn()
    device.answer()
    assert await asked == before
    await turn()
    assert engine.cost.changes == before + 1


async def test_one_batch_is_prefetched_shortly_before_the_running_one_should_end(
    serving: tuple[Engine, Device],
) -> None:
    engine, device = serving
    started = asyncio.get_running_loop().time()
    asked = ask(engine, [50] * 40)
    await turn()
    assert len(device.waiting) == 1
    joined = ask(engine, [50], deadline=started + 1.0)
    await device.holds_two_batches()
    assert asyncio.get_running_loop().time() - started >= 0.8 * 0.08, "the first batch should take 80 ms"
    assert device.waiting[1].batch.useful_tokens == 800, "it could still be filled with what came meanwhile"
    while device.waiting:
        device.answer()
        await turn()
        assert len(device.waiting) <= 2
    await asyncio.gather(asked, joined)


async def test_nothing_wakes_the_loop_while_a_batch_runs_and_nothing_is_queued(
    serving: tuple[Engine, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, device = serving
    armed: list[float] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda delay, *_, **__: armed.append(delay))
    first = ask(engine, [64] * 3)
    await turn()
    assert len(device.waiting) == 1
    assert armed == []
    second = ask(engine, [64] * 3)
    await turn()
    assert len(armed) == 1, "now there is something to prefetch"
    monkeypatch.undo()
    device.answer()
    await turn()
    device.answer()
    await asyncio.gather(first, second)


async def test_work_whose_caller_left_while_it_was_prefetched_is_left_out_by_the_device(
    serving: tuple[Engine, Device],
) -> None:
    engine, device = serving
    running = ask(engine, [50] * 4)
    await turn()
    gone, kept = ask(engine, [60, 61]), ask(engine, [30])
    await device.holds_two_batches()
    gone.cancel()
    await turn()
    device.answer()
    assert device.answer().useful_tokens == 30
    await asyncio.gather(running, kept)
    assert (engine.counters.computed_tokens, engine.counters.expired_tokens) == (230, 121)


async def test_a_deadline_that_passed_when_the_device_began_is_an_error_and_never_a_row_of_zeros(
    serving: tuple[Engine, Device],
) -> None:
    engine, device = serving
    running = ask(engine, [50] * 4)
    await turn()
    late = ask(engine, [30], deadline=asyncio.get_running_loop().time() + 0.1)
    await device.holds_two_batches()
    time.sleep(0.15)  # noqa: ASYNC251 - the event loop itself is late, so its own timer has not fired yet
    device.answer()
    device.answer()
    with pytest.raises(DeadlineExceededError):
        await late
    await running


async def test_a_batch_that_did_not_fit_the_memory_makes_the_next_ones_smaller(
    serving: tuple[Engine, Device],
) -> None:
    engine, device = serving
    asked = ask(engine, [50] * 40)
    await turn()
    device.answer(too_large=800)
    await turn()
    assert device.waiting[0].batch.useful_tokens == 400
    while device.waiting:
        device.answer()
        await turn()
    await asked


async def test_what_a_cancelled_caller_asked_for_never_reaches_the_device(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    running = ask(engine, [50] * 4)
    await turn()
    cancelled = ask(engine, [60] * 30)
    await turn()
    queued_before = engine.reserved_tokens
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    dropped = queued_before - engine.reserved_tokens
    assert engine.counters.expired_tokens == dropped > 0
    computed = 0
    while device.waiting:
        computed += device.answer().useful_tokens
        await turn()
    await running
    assert computed == queued_before - dropped
    assert engine.reserved_tokens == 0


async def test_a_deadline_that_passes_in_the_queue_ends_the_call_and_drops_the_work(
    serving: tuple[Engine, Device],
) -> None:
    engine, device = serving
    blocker = ask(engine, [60] * 20)
    await turn()
    late = ask(engine, [10], deadline=asyncio.get_running_loop().time() + 0.3)
    with pytest.raises(DeadlineExceededError):
        await late
    while device.waiting:
        assert device.answer().useful_tokens % 60 == 0, "the late row is not computed"
        await turn()
    await blocker


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    blocker = ask(engine, [60] * 20)
    await turn()
    with pytest.raises(DeadlineTooShortError, match=r"needs about .* ms and a margin, .* ms are left"):
        await ask(engine, [10], deadline=asyncio.get_running_loop().time() + 0.05)
    while device.waiting:
        device.answer()
        await turn()
    await blocker


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    engine, device = new_engine(drain_ms=100)
    open_gate(engine, device)
    kept = ask(engine, [60] * 17)  # an idle server takes it, though it is above the limit
    await turn()
    with pytest.raises(OverloadedError) as refused:
        await ask(engine, [60] * 4)
    assert refused.value.retry_after_ms is not None
    assert refused.value.retry_after_ms >= 10
    assert engine.counters.rejected_tokens == {"drain_limit": 240}
    assert engine.facts().refusing
    while device.waiting:
        device.answer()
        await turn()
    await kept
    assert not engine.facts().refusing


async def test_a_failed_batch_fails_its_own_callers_only(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    doomed = ask(engine, [50] * 4)
    await turn()
    fine = ask(engine, [50] * 4)
    await turn()
    device.answer(error=BatchFailedError("the device failed"))
    await turn()
    device.answer()
    with pytest.raises(BatchFailedError):
        await doomed
    assert np.shape(pooled(await fine)) == (4, 2)


async def test_a_lost_device_fails_the_server_and_everybody_hears_why() -> None:
    engine, device = new_engine()
    open_gate(engine, device)
    computed = ask(engine, [50] * 4)
    await turn()
    queued = ask(engine, [50] * 4)
    await turn()
    device.answer(error=BatchFailedError("the device failed"), lost="the device failed: CUDA error")
    with pytest.raises(BatchFailedError):
        await computed
    with pytest.raises(ServerFailedError, match="CUDA error"):
        await queued
    assert engine.phase == Phase("failed", "the device failed: CUDA error")


async def test_a_fault_of_our_own_in_a_result_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, device = new_engine()
    open_gate(engine, device)
    computed = ask(engine, [50] * 4)
    await turn()
    monkeypatch.setattr(notifier, "deliver", lambda *_, **__: 1 / 0)
    device.answer()
    with pytest.raises(ServerFailedError, match="the engine failed: ZeroDivisionError"):
        await computed
    assert engine.phase.name == "failed"


async def test_the_drain_estimate_is_what_the_device_needs(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    asked = ask(engine, [50] * 20)
    await turn()
    assert engine.drain_ms() == pytest.approx(100, rel=0.1)
    while device.waiting:
        device.answer()
        await turn()
    await asked
    assert engine.drain_ms() == 0


async def test_the_drain_time_that_an_answer_bears_runs_down_until_the_answer_leaves(
    serving: tuple[Engine, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, device = serving
    asked = ask(engine, [50])
    await turn()
    left = [ask(engine, [50] * 20) for _ in range(2)]
    await turn()
    device.answer()
    request = await asked
    assert request.drained_at is not None
    assert request.drained_at - asyncio.get_running_loop().time() == pytest.approx(0.2, rel=0.2)
    for until_drained, told_ms in ((0.25, 250), (0.01, 10), (0.0, 0), (-1.0, 0)):
        with monkeypatch.context() as later:
            later.setattr(engine, "_clock", lambda: request.drained_at - until_drained)  # noqa: B023
            assert engine.drain_left_ms(request) == pytest.approx(told_ms, abs=1e-3)
    while device.waiting:
        device.answer()
        await turn()
    await asyncio.gather(*left)


async def test_before_the_warm_up_and_after_a_failure_callers_hear_why() -> None:
    engine, device = new_engine()
    with pytest.raises(NotReadyError, match="not ready yet"):
        await ask(engine, [3])
    open_gate(engine, device)
    caught = ask(engine, [3])
    await turn()
    engine.failed("the device fell off the bus")
    with pytest.raises(ServerFailedError, match="fell off the bus"):
        await caught
    with pytest.raises(ServerFailedError, match="fell off the bus"):
        await ask(engine, [3])


async def test_a_draining_server_finishes_what_it_admitted_and_takes_no_more(serving: tuple[Engine, Device]) -> None:
    engine, device = serving
    admitted = ask(engine, [3])
    await turn()
    engine.lifecycle.begin_drain("the server shuts down")
    late = ask(engine, [4])  # while the word spreads, work is still taken
    await turn()
    engine.lifecycle.stop_accepting()
    with pytest.raises(DrainingError):
        await ask(engine, [5])
    waiting = asyncio.create_task(engine.wait_idle())
    await turn()
    assert not waiting.done()
    while device.waiting:
        device.answer()
        await turn()
    await asyncio.gather(admitted, late)
    await asyncio.wait_for(waiting, 5)


async def test_who_waits_for_an_idle_server_hears_of_it_when_a_batch_ends_that_nobody_waits_for(
    serving: tuple[Engine, Device],
) -> None:
    engine, device = serving
    gone = ask(engine, [50] * 4)
    await turn()
    gone.cancel()
    await turn()
    waiting = asyncio.create_task(engine.wait_idle())
    await turn()
    device.answer()
    await asyncio.wait_for(waiting, 5)


STEPS = st.one_of(
    st.lists(st.integers(1, 64), min_size=1, max_size=30),
    st.sampled_from(["answer", "fail", "turn"]),
    st.integers(0, 20),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=30))
def test_reserved_tokens_are_those_admitted_and_neither_computed_nor_dropped(steps: list) -> None:
    """A list asks for rows of these lengths, a word is the device's, a number cancels that caller."""

    async def timeline() -> None:
        engine, device = new_engine()
        open_gate(engine, device)
        asked: list[asyncio.Task] = []
        for step in steps:
            match step:
                case list():
                    asked.append(ask(engine, step))
                case "answer" if device.waiting:
                    device.answer()
                case "fail" if device.waiting:
                    device.answer(error=BatchFailedError("x"))
                case int() if step < len(asked):
                    asked[step].cancel()
            await turn()
            counters = engine.counters
            assert 0 <= engine.reserved_tokens <= counters.admitted_tokens - counters.computed_tokens
        while device.waiting:
            device.answer()
            await turn()
        await asyncio.gather(*asked, return_exceptions=True)
        assert engine.reserved_tokens == 0
        assert engine.is_idle

    asyncio.run(timeline())
