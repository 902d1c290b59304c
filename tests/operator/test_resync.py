"""Lists mend what watches missed, and tell a dead watch from one that began anew; as timelines in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sluice_operator.kube import KubeError
from sluice_operator.resync import OWNED, SELECTORS, Resync
from sluice_operator.store import Store

from tests.virtual_time import run_in_virtual_time

INTERVAL = 60.0


def pod(name: str, version: int) -> dict[str, Any]:
    labels = {"sluice.dev/embeddingservice": "minilm"}
    metadata = {
        "namespace": "shop",
        "name": name,
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "labels": labels,
    }
    return {"kind": "Pod", "metadata": metadata}


class ApiServer:
    """Holds pods; refuses while `trouble` is set."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.revision = 0
        self.trouble: KubeError | None = None
        self.asked: list[tuple[str, str | None, str | None]] = []

    def write(self, name: str) -> dict[str, Any]:
        self.revision += 1
        self.pods[name] = pod(name, self.revision)
        return self.pods[name]

    async def list(
        self, kind: str, namespace: str | None, label_selector: str | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        self.asked.append((kind, namespace, label_selector))
        if self.trouble is not None:
            raise self.trouble
        return (list(self.pods.values()) if kind == "Pod" else [], self.revision)


class Stage:
    """An API server, a store, and what keeps the two alike; `now` is the loop's time."""

    def __init__(self, *namespaces: str) -> None:
        self.api = ApiServer()
        self.store = Store(lambda _: None)
        loop = asyncio.get_running_loop()
        self.resync = Resync(
            self.api,
            self.store,
            namespaces,
            interval_seconds=INTERVAL,
            clock=loop.time,
        )

    def names(self) -> list[str]:
        return sorted(b["metadata"]["name"] for b in self.store.owned(("shop", "minilm"), "Pod"))


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_in_virtual_time(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@in_virtual_time
async def test_everything_is_listed_before_anything_is_decided() -> None:
    stage = Stage("shop", "search")
    stage.api.write("a")
    await stage.resync.fill()
    assert stage.names() == ["a"]
    wanted = [(kind, namespace, selector) for kind, selector in SELECTORS.items() for namespace in ("shop", "search")]
    assert stage.api.asked == wanted
    assert ("Pod", "shop", OWNED) in wanted


@in_virtual_time
async def test_without_namespaces_all_are_listed() -> None:
    stage = Stage()
    await stage.resync.fill()
    assert {namespace for _, namespace, _ in stage.api.asked} == {None}


@in_virtual_time
async def test_an_api_server_that_is_away_is_waited_for() -> None:
    stage = Stage()
    stage.api.write("a")
    stage.api.trouble = KubeError(None, "no route")
    filling = asyncio.create_task(stage.resync.fill())
    await asyncio.sleep(30)
    assert not filling.done()
    assert 5 <= len(stage.api.asked) <= 12, "asked again, and ever less often"
    stage.api.trouble = None
    await filling
    assert stage.names() == ["a"]


@in_virtual_time
async def test_an_api_server_that_asks_for_a_pause_gets_it() -> None:
    stage = Stage()
    stage.api.trouble = KubeError(429, "busy", retry_after_seconds=20.0)
    filling = asyncio.create_task(stage.resync.fill())
    await asyncio.sleep(19)
    assert len(stage.api.asked) == 1
    stage.api.trouble = None
    await filling


@in_virtual_time
async def test_what_a_watch_missed_is_mended_and_what_it_told_late_is_no_miss() -> None:
    stage = Stage()
    stage.store.put(stage.api.write("a"))
    running = asyncio.create_task(stage.resync.run())
    missed, late = stage.api.write("missed"), stage.api.write("late")
    await asyncio.sleep(INTERVAL + 1)
    assert stage.names() == ["a"], "the watches still have time to tell"
    stage.store.put(late)
    await asyncio.sleep(10)
    assert stage.names() == ["a", "late", missed["metadata"]["name"]]
    assert stage.resync.watches_are_alive, "once is no proof"
    running.cancel()


@in_virtual_time
async def test_what_is_gone_is_forgotten() -> None:
    stage = Stage()
    stage.store.put(stage.api.write("a"))
    del stage.api.pods["a"]
    await stage.resync.fill()
    assert stage.names() == []


@in_virtual_time
async def test_a_watch_that_misses_again_and_again_is_dead_until_it_misses_nothing() -> None:
    stage = Stage()
    running = asyncio.create_task(stage.resync.run())
    alive = []
    for number in range(3):
        stage.api.write(f"missed-{number}")
        await asyncio.sleep(INTERVAL + 6)
        alive.append(stage.resync.watches_are_alive)
    assert alive == [True, True, False]
    await asyncio.sleep(INTERVAL + 6)
    assert stage.resync.watches_are_alive
    running.cancel()


@in_virtual_time
async def test_a_list_that_fails_proves_nothing_about_the_watches() -> None:
    stage = Stage()
    running = asyncio.create_task(stage.resync.run())
    stage.api.trouble = KubeError(503, "unavailable")
    await asyncio.sleep(10 * INTERVAL)
    assert stage.resync.watches_are_alive
    assert not running.done()
    running.cancel()


@in_virtual_time
async def test_a_watch_that_began_anew_is_mended_at_once_and_not_blamed() -> None:
    stage = Stage()
    await stage.resync.fill()
    running = asyncio.create_task(stage.resync.run())
    for number in range(5):
        stage.api.write(f"in-between-{number}")
        stage.resync.ask()
        await asyncio.sleep(3)
        assert len(stage.names()) == number + 1
    assert stage.resync.watches_are_alive
    running.cancel()


@in_virtual_time
async def test_how_long_a_watch_has_proved_nothing() -> None:
    stage = Stage()
    assert stage.resync.ages() == {}
    await stage.resync.fill()
    await asyncio.sleep(7)
    assert stage.resync.ages() == dict.fromkeys(SELECTORS, 7.0)
    stage.resync.heard("Pod")
    await asyncio.sleep(2)
    assert (stage.resync.ages()["Pod"], stage.resync.ages()["Service"]) == (2.0, 9.0)


@in_virtual_time
async def test_waiting_can_be_cancelled() -> None:
    stage = Stage()
    running = asyncio.create_task(stage.resync.run())
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
