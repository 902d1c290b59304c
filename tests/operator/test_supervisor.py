"""Reconcilers are started, woken, buried and, where one dies, started anew."""

import asyncio
from typing import Any

import pytest
from sluice_operator import metrics, supervisor
from sluice_operator.store import Store
from sluice_operator.supervisor import Supervisor

from tests.operator.builders import resource

KEY = ("shop", "minilm")


class Reconciler:
    """Ends when told to, in the way it is told."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1

    async def run(self) -> None:
        await self.ended


class Stage:
    """A store, a supervisor over it, and the reconcilers made so far."""

    def __init__(self) -> None:
        self.made: list[Reconciler] = []
        self.store = Store(self._changed)
        self.supervisor = Supervisor(self._make, self.store)

    def _changed(self, key: Any) -> None:
        self.supervisor.wake(key)

    def _make(self, key: Any) -> Any:
        assert key == KEY
        self.made.append(Reconciler())
        return self.made[-1]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nothing_runs_before_it_may_act() -> None:
    stage = Stage()
    stage.store.put(resource())
    assert stage.made == []
    stage.supervisor.start()
    assert len(stage.made) == 1
    await stage.supervisor.stop()


async def test_a_change_wakes_the_one_reconciler() -> None:
    stage = Stage()
    stage.supervisor.start()
    stage.store.put(resource())
    newer = resource()
    newer["metadata"]["resourceVersion"] = "11"
    stage.store.put(newer)
    assert [r.wakes for r in stage.made] == [1]
    await stage.supervisor.stop()


async def test_one_that_dies_is_counted_and_started_anew(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.supervisor.start()
    stage.store.put(resource())
    await settle()
    deaths = metrics.TASK_DEATHS._value.get()
    stage.made[0].ended.set_exception(RuntimeError("boom"))
    await settle()
    assert len(stage.made) == 2
    assert metrics.TASK_DEATHS._value.get() == deaths + 1
    assert "the reconciler of shop/minilm died" in caplog.text
    await stage.supervisor.stop()


async def test_one_whose_service_is_gone_is_not_started_anew() -> None:
    stage = Stage()
    stage.supervisor.start()
    stage.store.put(resource())
    await settle()
    stage.store.remove(resource())
    stage.made[0].ended.set_result(None)
    await settle()
    assert len(stage.made) == 1
    stage.store.put(resource(uid="uid-2"))
    assert len(stage.made) == 2
    await stage.supervisor.stop()


async def test_stopping_ends_one_that_loses_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_CANCEL_AGAIN_SECONDS", 0.01)
    lost = []

    async def loses_one(_: Reconciler) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.append(1)
        await asyncio.Event().wait()

    monkeypatch.setattr(Reconciler, "run", loses_one)
    stage = Stage()
    stage.supervisor.start()
    stage.store.put(resource())
    await settle()
    async with asyncio.timeout(5):
        await stage.supervisor.stop()
    assert lost == [1]


async def test_stopping_ends_all_of_them() -> None:
    stage = Stage()
    stage.supervisor.start()
    stage.store.put(resource())
    await settle()
    await stage.supervisor.stop()
    assert stage.made[0].ended.cancelled()
    stage.supervisor.wake(KEY)
    assert len(stage.made) == 1
