"""POST /v1/embeddings on a real server: what a caller gets who asks for less, for much, too much, or too soon."""

import asyncio
import base64
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sluice_server.errors import OverloadedError
from sluice_server.http import answer
from sluice_server.requests import Terms
from sluice_server.serving import Embedded

from tests.server.conftest import RunningServer

TEXTS = ["How do I return a pair of shoes?", "The cat sat on the mat.", "x"]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Any
    body: Any

    def floats(self) -> Any:
        return np.array([one["embedding"] for one in self.body["data"]])

    def bytes(self) -> list[bytes]:
        return [base64.b64decode(one["embedding"], validate=True) for one in self.body["data"]]


def ask(server: RunningServer, given: Any, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    body = json.dumps({"input": given, **more}).encode()
    request = urllib.request.Request(f"{server.url}/v1/embeddings", body, headers or {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        return Answer(response.status, response.headers, json.load(response))


def on_loop(server: RunningServer, call: Callable[[], None]) -> None:
    async def run() -> None:
        call()

    asyncio.run_coroutine_threadsafe(run(), server.loop).result(30)


@contextlib.contextmanager
def queue_of(tokens: int, server: RunningServer) -> Iterator[None]:
    """Admitted, and not computed meanwhile: an idle server takes whatever it is asked."""
    engine = server.server.engine
    on_loop(server, lambda: engine.reserve(tokens, Terms()))
    try:
        yield
    finally:
        on_loop(server, lambda: engine.release(tokens))


def test_a_refused_request_gets_429_and_whole_seconds_to_come_back_after(minilm: RunningServer) -> None:
    with queue_of(1_000_000, minilm):
        refused = ask(minilm, TEXTS)
    assert refused.status == 429
    assert refused.headers["Content-Type"] == "application/json; charset=utf-8"
    assert int(refused.headers["Retry-After"]) >= 1
    error = refused.body["error"]
    assert "are allowed" in error["message"]
    assert (error["type"], error["code"]) == ("server_error", "too_many_requests")
    assert ask(minilm, TEXTS).status == 200


@pytest.mark.parametrize(("wait_ms", "least", "most"), [(10, 1, 1), (20_000, 15, 25), (None, None, None)])
def test_retry_after_is_the_wait_that_was_estimated_and_never_none_at_all(
    minilm: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    wait_ms: int | None,
    least: int | None,
    most: int | None,
) -> None:
    def refuse() -> None:
        raise OverloadedError("the queue is long", wait_ms, "drain_limit")

    monkeypatch.setattr(minilm.server.engine.lifecycle, "check_accepts", refuse)
    refused = ask(minilm, TEXTS)
    assert (refused.status, refused.body["error"]["message"]) == (429, "the queue is long")
    told = refused.headers["Retry-After"]
    assert told is None if least is None or most is None else least <= int(told) <= most


def test_a_time_out_that_is_too_short_for_the_queue_gets_504_at_once(minilm: RunningServer) -> None:
    with queue_of(5_000, minilm):
        refused = ask(minilm, TEXTS, {"x-request-timeout-ms": "1"})
        served = ask(minilm, TEXTS, {"x-request-timeout-ms": "30000"})
    assert (refused.status, refused.body["error"]["code"]) == (504, "gateway_timeout")
    assert "left of the deadline" in refused.body["error"]["message"]
    assert refused.headers["Retry-After"] is None
    assert served.status == 200


def test_a_request_that_is_late_on_an_idle_server_gets_504(minilm: RunningServer) -> None:
    late = ask(minilm, TEXTS, {"x-request-timeout-ms": "0.001"})
    assert (late.status, late.body["error"]["code"]) == (504, "gateway_timeout")
    assert "deadline" in late.body["error"]["message"]


@pytest.mark.parametrize("dimensions", [1, 64, 384])
def test_fewer_dimensions_are_the_first_ones_at_unit_length_as_floats_and_as_bytes(
    minilm: RunningServer, dimensions: int
) -> None:
    first = ask(minilm, TEXTS).floats()[:, :dimensions]
    rows = ask(minilm, TEXTS, dimensions=dimensions).floats()
    assert rows.shape == (len(TEXTS), dimensions)
    assert np.allclose(rows, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-5)
    as_bytes = ask(minilm, TEXTS, dimensions=dimensions, encoding_format="base64").bytes()
    assert [len(row) for row in as_bytes] == [4 * dimensions] * len(TEXTS)
    assert np.allclose(np.array([np.frombuffer(row, "<f4") for row in as_bytes]), rows, atol=1e-5)


async def written(rows: Any, encoding: str) -> Answer:
    document = await answer.written(Embedded(rows, 7, 0, 0, 0, 0, None), encoding=encoding, model="m")
    return Answer(200, {}, json.loads(document))


@pytest.mark.parametrize("rows_at_once", [1, 2, 3])
async def test_an_answer_written_in_portions_holds_every_number_in_the_order_of_the_inputs(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 384)).astype("<f4")
    monkeypatch.setattr(answer, "_NUMBERS_AT_ONCE", 384 * rows_at_once)
    as_floats, as_bytes = await written(rows, "float"), await written(rows, "base64")
    assert np.array_equal(as_floats.floats().astype("<f4"), rows)
    assert as_bytes.bytes() == [row.tobytes() for row in rows]
    assert [one.pop("index") for one in as_floats.body["data"]] == [0, 1, 2]
    assert as_floats.body.pop("data")[0].keys() == {"object", "embedding"}
    assert as_floats.body == {"object": "list", "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}}


async def test_others_have_their_turns_while_a_long_answer_is_written() -> None:
    writing = asyncio.create_task(written(np.ones((2048, 384), "<f4"), "float"))
    turns = 0
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(writing.result().floats()) == 2048
    assert turns >= 10


def test_a_large_body_of_too_many_ids_is_refused_by_their_number(minilm: RunningServer) -> None:
    answer = ask(minilm, [2003] * 140_000)
    assert answer.status == 400
    assert answer.body["error"]["message"] == "about 140000 token ids in one request; expected at most 131072"


def test_a_models_name_that_no_bytes_can_hold_is_no_reason_to_fail(minilm: RunningServer) -> None:
    assert ask(minilm, "a", model="m\ud800").body["model"] == "m?"
