"""A front end's engine and the main process's, through a real socket, with a device that answers when it is told to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from sluice_server.counters import Counters
from sluice_server.engine import Engine
from sluice_server.engine_port import Computation
from sluice_server.errors import (
    BatchFailedError,
    DeadlineExceededError,
    DrainingError,
    NotReadyError,
    OverloadedError,
    SluiceError,
)
from sluice_server.frontends import desk, frames
from sluice_server.frontends.desk import Desk
from sluice_server.frontends.frames import Kind
from sluice_server.frontends.link import Link
from sluice_server.frontends.recording import Telling
from sluice_server.frontends.remote_engine import RemoteEngine
from sluice_server.observability.observations import Observations
from sluice_server.requests import Priority, Terms

from tests.fakes import token_rows
from tests.server.test_engine import Device, new_engine, open_gate

TERMS = Terms()


@dataclass(slots=True)
class Pair:
    """Both ends, and what the main process was told."""

    engine: Engine
    device: Device
    desk: Desk
    remote: RemoteEngine
    link: Link
    counters: Counters
    told: list[Observations] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def telling(self) -> Telling:
        return Telling(lambda told: self.link.send(Kind.OBSERVATIONS, 0, *frames.observations(told)), self.counters)

    async def until_engine_holds(self, tokens: int) -> None:
        async with asyncio.timeout(5):
            while self.engine.reserved_tokens != tokens:  # noqa: ASYNC110 - the engine has nothing to wait for
                await asyncio.sleep(0)

    async def device_has_work(self) -> None:
        async with asyncio.timeout(5):
            await self.device.submitted.wait()
        self.device.submitted.clear()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    engine, device = new_engine()
    told: list[Observations] = []
    lost = asyncio.Event()
    counters = Counters()
    ours, remote = Desk(engine, told.append), RemoteEngine(counters)
    link = Link(remote.take, lost.set)
    remote.connect(link)
    for one, end in zip((ours.link, link), socket.socketpair(), strict=True):
        await asyncio.get_running_loop().create_unix_connection(lambda one=one: one, sock=end)
    yield Pair(engine, device, ours, remote, link, counters, told, lost)
    link.abort()
    await ours.gone
    await asyncio.sleep(0)
    assert engine.reserved_tokens == sum(job.batch.useful_tokens for job in device.waiting)


@pytest.fixture
async def serving(pair: Pair) -> Pair:
    open_gate(pair.engine, pair.device)
    return pair


def pooled(computation: Computation) -> list[list[float]]:
    rows: list[list[float]] = computation.computed.pooled.tolist()
    return rows


async def test_rows_are_admitted_and_computed_in_one_exchange(serving: Pair) -> None:
    asked = asyncio.create_task(serving.remote.compute(token_rows([3, 20]), TERMS))
    await serving.device_has_work()
    assert serving.engine.counters.offered_tokens == serving.engine.counters.admitted_tokens == 23
    serving.device.answer()
    answered = await asked
    assert pooled(answered) == [[5, 3], [8, 20]]
    assert answered.drain_ms == 0
    assert answered.compute_ms > 0


async def test_requests_that_come_together_share_a_batch(serving: Pair) -> None:
    asked = [asyncio.create_task(serving.remote.compute(token_rows([n]), TERMS)) for n in (3, 4, 5)]
    await serving.device_has_work()
    serving.device.answer()
    assert [pooled(await one) for one in asked] == [[[5, 3]], [[5, 4]], [[5, 5]]]


async def test_a_reservation_is_settled_by_what_is_computed(serving: Pair) -> None:
    reservation = await serving.remote.reserve(100, TERMS)
    assert serving.engine.reserved_tokens == 100
    asked = asyncio.create_task(serving.remote.compute(token_rows([7]), TERMS, reservation))
    await serving.device_has_work()
    assert serving.engine.reserved_tokens == serving.engine.counters.offered_tokens == 7
    serving.device.answer()
    assert pooled(await asked) == [[5, 7]]


async def test_a_reservation_can_be_given_back(serving: Pair) -> None:
    reservation = await serving.remote.reserve(100, TERMS)
    reservation.release()
    await serving.until_engine_holds(0)
    assert serving.engine.counters.expired_tokens == 100


async def test_a_caller_that_leaves_while_it_is_admitted_leaves_nothing_behind(serving: Pair) -> None:
    asked = asyncio.create_task(serving.remote.reserve(100, TERMS))
    await serving.until_engine_holds(100)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await serving.until_engine_holds(0)


async def test_what_a_caller_left_behind_never_reaches_the_device(serving: Pair) -> None:
    first = [asyncio.create_task(serving.remote.compute(token_rows([64] * 15), TERMS)) for _ in range(2)]
    await serving.device.holds_two_batches()
    left = asyncio.create_task(serving.remote.compute(token_rows([9]), TERMS))
    await serving.until_engine_holds(2 * 15 * 64 + 9)
    left.cancel()
    await serving.until_engine_holds(2 * 15 * 64)
    while not all(one.done() for one in first):
        if serving.device.waiting:
            assert 9 not in serving.device.answer().lengths
        await asyncio.sleep(0)
    assert serving.engine.counters.expired_tokens == 9


async def test_a_deadline_ends_a_request_that_waits(serving: Pair) -> None:
    first = asyncio.create_task(serving.remote.compute(token_rows([4]), TERMS))
    await serving.device_has_work()
    soon = asyncio.get_running_loop().time() + 0.2
    with pytest.raises(DeadlineExceededError):
        await serving.remote.compute(token_rows([4]), Terms(deadline=soon))
    serving.device.answer()
    await first


async def test_a_refusal_says_when_to_come_back(serving: Pair) -> None:
    held = await serving.remote.reserve(9_000, TERMS)
    with pytest.raises(OverloadedError) as refused:
        await serving.remote.compute(token_rows([64] * 40), Terms(Priority.BATCH))
    assert refused.value.reason in {"drain_limit", "token_limit"}
    assert refused.value.retry_after_ms
    assert serving.engine.counters.rejected_requests == {refused.value.reason: 1}
    held.release()
    await serving.until_engine_holds(0)


async def test_before_and_after_serving_the_engine_says_why_not(pair: Pair) -> None:
    with pytest.raises(NotReadyError, match="not ready yet: starting"):
        await pair.remote.reserve(0, TERMS)
    open_gate(pair.engine, pair.device)
    pair.engine.lifecycle.begin_drain("it ends")
    pair.engine.lifecycle.stop_accepting()
    with pytest.raises(DrainingError):
        await pair.remote.compute(token_rows([4]), TERMS)


async def test_a_batch_that_fails_is_told_to_its_callers(serving: Pair) -> None:
    asked = asyncio.create_task(serving.remote.compute(token_rows([4]), TERMS))
    await serving.device_has_work()
    serving.device.answer(error=BatchFailedError("the device failed on it"))
    with pytest.raises(BatchFailedError, match="the device failed on it"):
        await asked


async def test_a_mistake_of_ours_fails_one_request_and_not_the_front_end(
    serving: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(serving.engine, "begin", lambda *_, **__: 1 / 0)
        with pytest.raises(SluiceError, match="its log has the cause"):
            await serving.remote.compute(token_rows([4]), TERMS)
    assert serving.engine.reserved_tokens == 0
    assert not serving.desk.gone.done()


async def test_a_reservation_that_nobody_comes_for_lapses(serving: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await serving.remote.reserve(100, TERMS)
    serving.link.send(Kind.BEAT)
    late = await serving.remote.reserve(30, TERMS)
    assert serving.engine.reserved_tokens == 130
    monkeypatch.setattr(desk, "_RESERVED_FOR_SECONDS", 0.0)
    serving.link.send(Kind.BEAT)
    await serving.until_engine_holds(0)
    asked = asyncio.create_task(serving.remote.compute(token_rows([7]), TERMS, late))
    await serving.device_has_work()
    assert serving.engine.reserved_tokens == 7, "who comes after all is admitted anew"
    serving.device.answer()
    await asked


async def test_where_the_main_process_does_not_read_a_front_end_refuses_and_both_count_it(
    serving: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    reservation = await serving.remote.reserve(100, TERMS)
    with monkeypatch.context() as stuck:
        stuck.setattr(Link, "is_behind", True)
        for ask in (
            serving.remote.reserve(20, TERMS),
            serving.remote.compute(token_rows([4]), TERMS),
            serving.remote.compute(token_rows([5]), TERMS, reservation),
        ):
            with pytest.raises(OverloadedError, match="does not read") as refused:
                await ask
            assert refused.value.retry_after_ms
    await serving.until_engine_holds(0)
    telling = serving.telling()
    telling.end("embed", "RESOURCE_EXHAUSTED")
    telling.flush()
    telling.end("embed", "RESOURCE_EXHAUSTED")
    telling.flush()
    async with asyncio.timeout(5):
        while len(serving.told) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    assert serving.engine.counters.rejected_requests == {"front_end": 3}
    assert serving.engine.counters.rejected_tokens == {"front_end": 29}


async def test_when_a_front_end_is_gone_its_work_is_given_back_and_its_calls_are_counted(serving: Pair) -> None:
    telling = serving.telling()
    telling.begin("embed")
    telling.begin("embed")
    telling.end("embed", "OK")
    telling.flush()
    await serving.remote.reserve(100, TERMS)
    asked = asyncio.create_task(serving.remote.compute(token_rows([4] * 300), TERMS))
    await serving.device_has_work()
    serving.link.abort()
    async with asyncio.timeout(5):
        await serving.desk.gone
    await serving.until_engine_holds(sum(job.batch.useful_tokens for job in serving.device.waiting))
    assert serving.told[-1].ended == {("embed", "UNAVAILABLE"): 1}
    asked.cancel()


async def test_the_health_document_is_the_engines_own(serving: Pair) -> None:
    document = await serving.remote.health_document()
    assert document["accepting_requests"] is True
    assert document["phase"]["name"] == "serving"


async def test_a_front_end_that_sends_nonsense_is_cut_off(serving: Pair) -> None:
    serving.link.send(Kind.COMPUTE, 1, b"short")
    async with asyncio.timeout(5):
        await serving.lost.wait()
    assert serving.desk.gone.done()


async def test_observations_come_in_bunches(serving: Pair) -> None:
    telling = serving.telling()
    for _ in range(5):
        telling.begin("infer")
        telling.end("infer", "CANCELLED")
    async with asyncio.timeout(5):
        while not serving.told:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert len(serving.told) == 1
    assert serving.told[0].ended == {("infer", "CANCELLED"): 5}
    assert serving.told[0].answers.shape == (0, 4)
    assert np.isfinite(serving.told[0].answers).all()
