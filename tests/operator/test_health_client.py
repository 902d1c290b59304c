"""Polling pods over real HTTP on loopback: what is believed, and what is not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from sluice_operator.health_client import HealthClient, parse
from sluice_operator.values import Pod

from tests.operator.builders import ROOT, health_document, pod

SCHEMA = json.loads(Path(ROOT / "proto/health.schema.json").read_text())
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[Pod]]]:
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> Pod:
        app = web.Application()
        app.add_routes([web.get("/health", handler)])
        runner = web.AppRunner(app, handler_cancellation=True)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return pod(f"p{len(runners)}", ip="127.0.0.1", http_port=runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize("phase", ["starting", "downloading", "loading", "warming", "serving", "draining", "failed"])
def test_the_builders_document_keeps_the_contract_and_is_understood(phase: str) -> None:
    document = health_document(phase, reason="why", step=1, steps=2)
    Draft202012Validator(SCHEMA).validate(document)
    seen = parse(document)
    assert (seen.phase, seen.phase_reason, seen.phase_step, seen.phase_steps) == (phase, "why", 1, 2)


def test_a_newer_servers_further_keys_are_ignored() -> None:
    assert parse(health_document() | {"colour": "green"}).phase == "serving"


@pytest.mark.parametrize(
    "change",
    [
        {"queued_tokens": -1}, {"queued_tokens": "many"}, {"accepting_requests": "yes"}, {"boot_id": ""},
        {"service_rate_tokens_per_sec": 0}, {"busy_fraction": 7}, {"phase": {"name": "dancing"}}, {"model": None},
        {"estimated_drain_time_ms": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_out_of_range_is_not_believed(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        parse(health_document() | change)


async def test_a_pod_that_answers_is_heard(serve: Callable[[Handler], Awaitable[Pod]]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(health_document(queued_tokens=7))

    asked = await serve(answer)
    async with HealthClient(timeout_seconds=2, concurrency=4) as client:
        assert (await client.poll([asked]))[asked.uid].queued_tokens == 7


async def test_bad_pods_are_left_out_and_harm_nobody(serve: Callable[[Handler], Awaitable[Pod]]) -> None:
    async def good(_: web.Request) -> web.Response:
        return web.json_response(health_document())

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async def garbage(_: web.Request) -> web.Response:
        return web.Response(body=b"\xff\xfe<html>")

    async def nan(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps(health_document(busy_fraction=float("nan"))))

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(4096):
            await response.write(b" " * 65_536)
        return response

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("/health")

    pods = [await serve(handler) for handler in (good, hang, garbage, nan, endless, elsewhere)]
    absent = replace(pods[0], name="absent", uid="absent", http_port=1)
    nowhere = replace(pods[0], name="nowhere", uid="nowhere", ip=None)
    async with HealthClient(timeout_seconds=0.5, concurrency=16) as client:
        assert set(await client.poll([*pods, absent, nowhere])) == {pods[0].uid}


async def test_no_more_pods_are_asked_at_once_than_allowed(serve: Callable[[Handler], Awaitable[Pod]]) -> None:
    now, most, both = 0, 0, asyncio.Event()

    async def count(_: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if most == 2:
            both.set()
        await both.wait()
        now -= 1
        return web.json_response(health_document())

    one = await serve(count)
    pods = [replace(one, uid=f"u{i}") for i in range(10)]
    async with HealthClient(timeout_seconds=5, concurrency=2) as client:
        assert len(await client.poll(pods)) == 10
    assert most == 2
