"""The engine under more load than it can bear, in virtual time: a device with noise, and callers that do not wait.

The pipeline is the real one; only the device is made of timers. What a real machine does to it, bench/overload.py shows.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from sluice_server.admission import AdmissionLimits
from sluice_server.backend import BatchOutput, ModelInfo
from sluice_server.batcher import BatchLimits
from sluice_server.cost import Measurement
from sluice_server.engine import Engine, EngineConfig
from sluice_server.errors import DeadlineExceededError, DeadlineTooShortError, OverloadedError
from sluice_server.intake import IntakeConfig
from sluice_server.jobs import BatchResult, Job
from sluice_server.requests import Priority, Terms, TokenRows

from tests.virtual_time import run_in_virtual_time

BOUNDARIES = (16, 32, 64, 128, 256, 512)
TOKENS_PER_SECOND = 10_000
FIXED_SECONDS = 0.01
LIMIT_SECONDS = 2.0
LIMITS = BatchLimits(
    max_rows=512,
    max_tokens=32768,
    target_seconds=0.025,
    stale_after_seconds=0.05,
    patience_seconds=LIMIT_SECONDS,
    mixes_buckets=True,
)
# Below it, what came a moment later decides.
COMPARABLE_SECONDS = 0.05
# Who came so soon after a promise was made shows what became of it.
NEXT_WITHIN_SECONDS = 0.02
Lengths = Callable[[np.random.Generator], list[int]]


def products(dice: np.random.Generator) -> list[int]:
    return [int(np.clip(32 * np.exp(0.6 * dice.standard_normal()), 3, 128))]


def mixed(dice: np.random.Generator) -> list[int]:
    """One short query, a product, or a request of many long passages."""
    kind = dice.random()
    if kind < 0.6:
        return [int(dice.integers(4, 20))]
    return products(dice) if kind < 0.95 else [int(n) for n in dice.integers(60, 256, dice.integers(2, 20))]


@dataclass(slots=True)
class Device:
    """Computes one batch after the other, each a tenth faster or slower than it should be.

    Attributes:
        slowdown: By which every batch takes longer than warm-up measured.
        gone: Numbers of requests whose callers wait no longer.
        computed_late: Tokens that it computed although nobody waited any more.
    """

    dice: np.random.Generator
    info: ModelInfo = field(default=ModelInfo("m", None, 2, 512, 512, 30_000, "float32", "cpu", "packed", "mean", {}))
    slowdown: float = 1.0
    gone: set[int] = field(default_factory=set)
    computed_late: int = 0
    busy_seconds: float = 0.0
    engine: Engine | None = None
    _free_at: float = 0.0

    def submit(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(max(loop.time(), self._free_at), self._start, job)

    def _start(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._free_at:
            loop.call_at(self._free_at, self._start, job)
            return
        left_out = job.left_out(loop.time())
        tokens = job.batch.useful_tokens - (0 if left_out is None else int(job.batch.lengths[left_out].sum()))
        seconds = (FIXED_SECONDS + tokens / TOKENS_PER_SECOND) * self.slowdown * self.dice.uniform(0.9, 1.1)
        self._free_at = loop.time() + seconds
        self.busy_seconds += seconds
        self.computed_late += self._unwanted(job, left_out)
        output = BatchOutput(np.ones((len(job.batch.lengths), 2), dtype=np.float32), tokens)
        result = BatchResult(output, None, loop.time(), seconds, left_out)
        assert self.engine is not None
        loop.call_later(seconds, self.engine.on_result, job.number, result)

    def _unwanted(self, job: Job, left_out: NDArray[np.bool_] | None) -> int:
        """Tokens of rows that are computed although their caller is gone: each row's ids are its request's number."""
        lengths = job.batch.lengths
        numbers = job.batch.token_ids[np.cumsum(lengths) - lengths]
        kept = np.ones(len(lengths), dtype=bool) if left_out is None else ~left_out
        return int(lengths[kept & np.isin(numbers, list(self.gone))].sum())


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one request."""

    word: str
    seconds: float
    tokens: int
    priority: Priority
    asked_at: float
    told_drain_seconds: float | None


@dataclass(slots=True)
class Service:
    """An engine, its device, and what callers lived through."""

    engine: Engine
    device: Device
    fates: list[Fate] = field(default_factory=list)
    asked: int = 0

    async def ask(
        self,
        lengths: list[int],
        *,
        patience_seconds: float,
        priority: Priority,
        leaves_after_seconds: float | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        asked_at, deadline = loop.time(), loop.time() + patience_seconds
        self.asked += 1
        number = self.asked
        rows = TokenRows(np.full(sum(lengths), number, dtype=np.int32), np.array(lengths, dtype=np.int32))
        drain_ms, word = self.engine.drain_ms(), "served"
        try:
            terms = Terms(priority, deadline)
            self.engine.reserve(rows.total_tokens, terms)
            async with asyncio.timeout(leaves_after_seconds):
                await self.engine.compute(rows, terms)
        except (OverloadedError, DeadlineTooShortError):
            word = "refused"
        except DeadlineExceededError:
            word = "timed out"
        except TimeoutError:
            word = "left"
        self.device.gone.add(number)
        told = None if drain_ms is None else drain_ms / 1000
        self.fates.append(Fate(word, loop.time() - asked_at, sum(lengths), priority, asked_at, told))

    async def traffic(
        self,
        lengths: Lengths,
        *,
        load: float,
        seconds: float,
        seed: int = 1,
        patience_seconds: float = 10.0,
        priority: Priority = Priority.INTERACTIVE,
        leave_share: float = 0.0,
    ) -> None:
        """Poisson arrivals of so many times what the device can do, whatever becomes of them; some leave soon."""
        loop, dice = asyncio.get_running_loop(), np.random.default_rng(seed)
        mean_tokens = float(np.mean([sum(lengths(dice)) for _ in range(2000)]))
        end, under_way = loop.time() + seconds, set[asyncio.Task[None]]()
        while loop.time() < end:
            await asyncio.sleep(dice.exponential(mean_tokens / (load * TOKENS_PER_SECOND)))
            leaves = float(dice.uniform(0, 1)) if dice.random() < leave_share else None
            asked = self.ask(
                lengths(dice), patience_seconds=patience_seconds, priority=priority, leaves_after_seconds=leaves
            )
            task = loop.create_task(asked)
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    def those(self, word: str, priority: Priority | None = None) -> list[Fate]:
        return [f for f in self.fates if f.word == word and priority in (None, f.priority)]

    def promises(self) -> list[tuple[float, float]]:
        """Filled from now on: when each batch was done, and the drain time as it was told then, in seconds."""
        told: list[tuple[float, float]] = []
        on_result = self.engine.on_result

        def noting(number: int, result: BatchResult) -> None:
            on_result(number, result)
            told.append((asyncio.get_running_loop().time(), (self.engine.drain_ms() or 0.0) / 1000))

        self.engine.on_result = noting  # type: ignore[method-assign]
        return told

    def goodput(self) -> float:
        """Tokens per second served within the limit."""
        in_time = [f for f in self.those("served") if f.seconds <= LIMIT_SECONDS]
        span = max(f.asked_at for f in self.fates) - min(f.asked_at for f in self.fates)
        return sum(f.tokens for f in in_time) / span

    def drain_errors(self) -> list[float]:
        """|told - lived| / lived, where lived is until all that was there when it was told had ended."""
        admitted = sorted((f for f in self.fates if f.word != "refused"), key=lambda f: f.asked_at)
        starts, ends = (
            np.array(v) for v in zip(*((f.asked_at, f.asked_at + f.seconds) for f in admitted), strict=True)
        )
        errors = []
        for fate in self.fates:
            there = ends[: np.searchsorted(starts, fate.asked_at)]
            lived = there.max(initial=fate.asked_at) - fate.asked_at
            if fate.told_drain_seconds is not None and lived > COMPARABLE_SECONDS:
                errors.append(abs(fate.told_drain_seconds - lived) / lived)
        return errors


@asynccontextmanager
async def service(seed: int = 0) -> AsyncIterator[Service]:
    device = Device(np.random.default_rng(seed))
    intake = IntakeConfig(AdmissionLimits(1000 * LIMIT_SECONDS, 131_072), None, 1.0)
    config = EngineConfig("m", BOUNDARIES, (8, 64, 512), intake)
    engine = Engine(config, device.submit, clock=asyncio.get_running_loop().time)
    device.engine = engine
    timings = [
        Measurement(bucket, tokens, FIXED_SECONDS + tokens / TOKENS_PER_SECOND)
        for bucket in BOUNDARIES
        for tokens in (bucket, 1024)
    ]
    engine.ready(device, "f", timings, LIMITS)  # type: ignore[arg-type]
    yield Service(engine, device)
    await engine.wait_idle()
    assert engine.reserved_tokens == 0


def p99_seconds(fates: list[Fate]) -> float:
    return float(np.percentile([f.seconds for f in fates], 99))


# A batch of the longest time that a backlog allows; one fixed cost each.
CAPACITY = TOKENS_PER_SECOND * 0.09 / 0.1


@pytest.mark.parametrize("lengths", [products, mixed])
def test_at_three_times_its_capacity_a_server_does_its_capacity_within_the_limit(lengths: Lengths) -> None:
    async def timeline() -> None:
        async with service() as one:
            await one.traffic(lengths, load=3, seconds=30)
            assert one.goodput() >= 0.95 * CAPACITY
            assert p99_seconds(one.those("served")) <= 1.2 * LIMIT_SECONDS
            assert not one.those("timed out")

    run_in_virtual_time(timeline())


def test_at_three_times_its_capacity_long_texts_are_served_as_often_as_short_ones() -> None:
    async def timeline() -> None:
        async with service() as one:
            await one.traffic(products, load=3, seconds=60)
            shares = []
            for least, most in ((3, 16), (64, 128)):
                fates = [f for f in one.fates if least <= f.tokens <= most]
                shares.append(sum(f.word == "served" for f in fates) / len(fates))
            assert shares[1] >= 0.8 * shares[0]

    run_in_virtual_time(timeline())


def test_a_device_that_becomes_half_as_fast_in_the_midst_of_it_times_nobody_out() -> None:
    async def timeline() -> None:
        async with service() as one:
            asyncio.get_running_loop().call_later(20, setattr, one.device, "slowdown", 2.0)
            await one.traffic(products, load=3, seconds=40)
            assert not one.those("timed out")
            # Only those are late whom it had admitted before anybody could know.
            late = [f for f in one.those("served") if f.seconds > 1.2 * LIMIT_SECONDS]
            assert len(late) <= 0.05 * len(one.those("served"))

    run_in_virtual_time(timeline())


def test_of_callers_who_leave_nothing_reaches_the_device() -> None:
    async def timeline() -> None:
        async with service() as one:
            await one.traffic(mixed, load=1.5, seconds=30, leave_share=0.3)
            assert len(one.those("left")) > 100
            assert one.device.computed_late == 0

    run_in_virtual_time(timeline())


def test_it_is_well_again_within_one_limit_after_the_load_ends() -> None:
    async def timeline() -> None:
        async with service() as one:
            loop = asyncio.get_running_loop()
            load = asyncio.create_task(one.traffic(products, load=3, seconds=20))
            await asyncio.sleep(20)
            assert (one.engine.drain_ms() or 0.0) > 500 * LIMIT_SECONDS
            ended_at = loop.time()
            await one.engine.wait_idle()
            assert loop.time() - ended_at <= LIMIT_SECONDS
            await load

    run_in_virtual_time(timeline())


def test_callers_with_short_deadlines_are_refused_at_once_or_served_in_time() -> None:
    async def timeline() -> None:
        async with service() as one:
            await one.traffic(products, load=3, seconds=30, patience_seconds=0.5)
            assert not one.those("timed out")
            assert one.goodput() >= 0.95 * CAPACITY

    run_in_virtual_time(timeline())


@pytest.mark.parametrize("lengths", [products, mixed])
def test_the_drain_estimate_is_what_callers_live_through(lengths: Lengths) -> None:
    """Loads from idle to overload, one after the other, while the device's speed changes, too."""

    async def timeline() -> None:
        async with service() as one:
            for place, load in enumerate((0.5, 1.5, 0.9, 3.0, 0.7, 1.2)):
                one.device.slowdown = (1.0, 1.3)[place % 2]
                await one.traffic(lengths, load=load, seconds=10, seed=place)
            errors = one.drain_errors()
            assert len(errors) > 1000
            assert np.median(errors) <= 0.15
            assert np.percentile(errors, 95) <= 0.40

    run_in_virtual_time(timeline())


@pytest.mark.parametrize("load", [0.7, 0.85, 1.3])
def test_what_is_promised_as_an_answer_leaves_is_neither_too_long_nor_too_short_on_average(load: float) -> None:
    async def timeline() -> None:
        async with service() as one:
            promises = one.promises()
            await one.traffic(products, load=load, seconds=60)
            served = sorted(one.those("served"), key=lambda f: f.asked_at)
            asked_at = np.array([f.asked_at for f in served])
            shares = []
            for told_at, promised in promises:
                place = int(np.searchsorted(asked_at, told_at))
                if place < len(served) and asked_at[place] - told_at < NEXT_WITHIN_SECONDS and promised:
                    shares.append((asked_at[place] + served[place].seconds - told_at) / promised)
            assert len(shares) > 400
            assert np.median(shares) == pytest.approx(1.0, abs=0.05)

    run_in_virtual_time(timeline())


def test_people_wait_no_longer_the_more_batch_work_is_sent() -> None:
    async def beside(batch_load: float) -> tuple[float, int]:
        async with service() as one:
            people = one.traffic(products, load=0.1, seconds=30, seed=3)
            bulk = one.traffic(mixed, load=batch_load, seconds=30, seed=4, priority=Priority.BATCH)
            await asyncio.gather(people, bulk)
            return p99_seconds(one.those("served", Priority.INTERACTIVE)), len(
                one.those("refused", Priority.INTERACTIVE)
            )

    half, refused_beside_half = run_in_virtual_time(beside(0.5))
    five, refused_beside_five = run_in_virtual_time(beside(5.0))
    assert refused_beside_half == refused_beside_five == 0
    # One batch that runs and one's own.
    assert five <= 0.2
    assert five <= 1.5 * half


def test_batch_work_is_refused_before_any_interactive_work_is() -> None:
    async def timeline() -> None:
        async with service() as one:
            people = one.traffic(products, load=0.7, seconds=30, seed=3)
            bulk = one.traffic(products, load=1.5, seconds=30, seed=4, priority=Priority.BATCH)
            await asyncio.gather(people, bulk)
            assert len(one.those("refused", Priority.BATCH)) > 100
            assert not one.those("refused", Priority.INTERACTIVE)
            assert not one.those("timed out")

    run_in_virtual_time(timeline())


def test_batch_work_goes_on_beside_more_interactive_work_than_the_device_can_do() -> None:
    async def timeline() -> None:
        async with service() as one:
            bulk = one.traffic(products, load=0.2, seconds=30, seed=4, priority=Priority.BATCH, patience_seconds=60)
            people = one.traffic(products, load=1.0, seconds=30, seed=3)
            await asyncio.gather(people, bulk)
            assert one.those("served", Priority.BATCH)
            assert not one.those("timed out", Priority.BATCH)

    run_in_virtual_time(timeline())
