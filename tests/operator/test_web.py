"""What the kubelet and Prometheus are told, over real HTTP on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from sluice_operator import metrics, web

from tests.virtual_time import run_in_virtual_time

Ask = Callable[[str], Any]


@asynccontextmanager
async def serving(*, alive: bool = True, ready: bool = True) -> AsyncIterator[Ask]:
    server = web.WebServer(
        alive={"watches": lambda: alive}, ready={"acts": lambda: ready}, facts={"services": lambda: 3}
    )
    port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ask(path: str) -> tuple[int, Any]:
            async with session.get(path) as answer:
                is_json = answer.content_type == "application/json"
                return answer.status, await answer.json() if is_json else await answer.text()

        yield ask
    await server.close()


@pytest.mark.parametrize(
    ("alive", "ready", "healthz", "readyz"), [(True, True, 200, 200), (True, False, 200, 503), (False, True, 503, 503)]
)
async def test_only_a_process_that_is_dead_is_replaced(alive: bool, ready: bool, healthz: int, readyz: int) -> None:
    async with serving(alive=alive, ready=ready) as ask:
        assert await ask("/healthz") == (healthz, {"watches": alive, "services": 3})
        assert await ask("/readyz") == (readyz, {"watches": alive, "acts": ready, "services": 3})


async def test_metrics_are_told_in_the_form_of_prometheus() -> None:
    names = {"namespace": "shop", "service": "of-test-web"}
    metrics.RECOMMENDED_REPLICAS.labels(**names).set(4)
    async with serving() as ask:
        status, text = await ask("/metrics")
    metrics.forget_service(*names.values())
    assert status == 200
    assert 'sluice_recommended_replicas{namespace="shop",service="of-test-web"} 4.0' in text
    async with serving() as ask:
        assert "of-test-web" not in (await ask("/metrics"))[1]


async def test_a_closed_server_no_longer_listens() -> None:
    server = web.WebServer(alive={}, ready={}, facts={})
    port = await server.start("127.0.0.1", 0)
    await server.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)


def test_a_loop_that_is_always_late_does_not_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    late_seconds = [0.0]

    async def main() -> None:
        lag = web.LoopLag()
        clock = asyncio.get_running_loop().time
        passed = [0.0]

        def monotonic() -> float:
            """Beside the loop's own time, what each look at the clock is late by."""
            passed[0] += late_seconds[0] / 2
            return clock() + passed[0]

        monkeypatch.setattr(web.time, "monotonic", monotonic)
        looks = asyncio.create_task(lag.measure())
        assert (lag.worst_seconds, lag.keeps_up) == (0.0, True)
        await asyncio.sleep(60.5)
        assert (lag.worst_seconds, lag.keeps_up) == (0.0, True)
        late_seconds[0] = 12.0
        await asyncio.sleep(3)
        assert lag.worst_seconds == 6.0
        assert lag.keeps_up, "late now and then"
        await asyncio.sleep(10)
        assert not lag.keeps_up
        looks.cancel()

    run_in_virtual_time(main())
