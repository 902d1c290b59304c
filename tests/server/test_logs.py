"""What a person reads at night: ids that lead from a caller's record to ours, few lines, and every failure."""

import asyncio
import io
import json
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import pytest
from gpu_inference import inference_pb2, inference_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server import logs
from sluice_server.counters import Counters
from sluice_server.errors import OverloadedError
from sluice_server.observability import observer as observers
from sluice_server.observability import request_ids
from sluice_server.observability import scope as scopes
from sluice_server.observability.observer import RequestObserver
from sluice_server.observability.refusal_log import RefusalLog
from sluice_server.observability.scope import EMBED, EMBED_STREAM

from tests.server.conftest import RunningServer

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
GENERATED = re.compile(r"[0-9a-f]{32}")
TEXTS = pb.Texts(values=["a text"])

Lines = Callable[[], list[dict[str, Any]]]


def test_a_library_that_brought_a_handler_of_its_own_writes_through_ours(caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("a_library")
    own = io.StringIO()
    library.addHandler(logging.StreamHandler(own))
    library.propagate = False
    logs.adopt("a_library")
    logging.getLogger("a_library.part").warning("look here")
    assert (own.getvalue(), caplog.messages) == ("", ["look here"])


# --- which id -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "own_id", "expected"),
    [
        ({"x-request-id": "from-the-header", "traceparent": TRACEPARENT}, "own", "from-the-header"),
        ({"traceparent": TRACEPARENT}, "own", "own"),
        ({"traceparent": TRACEPARENT}, "", TRACE_ID),
        ({"x-request-id": "é", "traceparent": TRACEPARENT}, "", TRACE_ID),
        ({"x-request-id": "x" * 128}, "", "x" * 128),
    ],
)
def test_the_caller_s_id_is_taken_in_this_order(metadata: Mapping[str, str], own_id: str, expected: str) -> None:
    assert request_ids.choose(metadata, own_id) == expected


@pytest.mark.parametrize("said", ["", "x" * 129, "two\nlines", "tab\t", "naïve", b"bytes"])
def test_what_is_no_id_is_replaced(said: str | bytes) -> None:
    assert GENERATED.fullmatch(request_ids.choose({"x-request-id": said}))


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-00f067aa0ba902b7-01",
        "00",
    ],
)
def test_an_invalid_traceparent_gives_no_id(traceparent: str) -> None:
    assert request_ids.choose({"traceparent": traceparent}) != TRACE_ID


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_is_sent_the_id_fits_a_header(header: str, own_id: str) -> None:
    chosen = request_ids.choose({"x-request-id": header}, own_id)
    assert request_ids.is_valid(chosen)
    assert request_ids.is_valid(request_ids.within(chosen, own_id))


# --- refusals -----------------------------------------------------------------------------------


def test_refusals_are_told_when_they_begin_while_they_last_and_when_they_end() -> None:
    log = RefusalLog()
    said = [
        log.look(0, {}),
        log.look(100, {"drain_limit": 1}),
        log.look(110, {"drain_limit": 121, "deadline": 3}),
        log.look(120, {"drain_limit": 122, "deadline": 3}),
        log.look(130, {"drain_limit": 122, "deadline": 3}),
        log.look(140, {"drain_limit": 122, "deadline": 3}),
        log.look(500, {"drain_limit": 122, "deadline": 4}),
        log.look(510, {"drain_limit": 122, "deadline": 4}),
    ]
    assert said == [
        None,
        "requests are refused: drain_limit 1",
        "123 requests refused in the last 10 s: drain_limit 120, deadline 3",
        "1 request refused in the last 10 s: drain_limit 1",
        "pressure has ended: nothing was refused for 10 s; 125 requests refused in the 20 s before",
        None,
        "requests are refused: deadline 1",
        "pressure has ended: nothing was refused for 10 s; 1 request refused in the 0 s before",
    ]


async def test_many_refusals_are_two_lines(monkeypatch: Any, lines: Lines) -> None:
    monkeypatch.setattr(observers, "INTERVAL_SECONDS", 0.05)
    ended = asyncio.Event()
    told = logging.getLogger(observers.__name__)
    told.addFilter(watch := lambda record: "ended" not in record.getMessage() or ended.set() is None)
    counters = Counters()
    observer = RequestObserver(counters)
    for _ in range(1000):
        scope = observer.begin(EMBED, {})
        counters.reject("drain_limit", 10)
        observer.end(scope, "RESOURCE_EXHAUSTED")
    await asyncio.wait_for(ended.wait(), 10)
    told.removeFilter(watch)
    begin, *between, end = lines()
    assert begin["message"] == "requests are refused: drain_limit 1"
    assert begin["level"] == "WARNING"
    assert "request_id" not in begin, "it is about many"
    assert [line["message"] for line in between] == ["999 requests refused in the last 10 s: drain_limit 999"]
    assert end["message"].startswith("pressure has ended")


# --- records ------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Every line that the server would write from now on."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter("json"))
    handler.addFilter(logs.RequestFilter())
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def at_debug() -> Iterator[None]:
    """LOG_LEVEL=DEBUG, for our own loggers."""
    own = logging.getLogger("sluice_server")
    own.setLevel(logging.DEBUG)
    yield
    own.setLevel(logging.NOTSET)


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return embeddings_pb2_grpc.EmbeddingsStub(channel)


def returned_id(call: Any) -> str:
    return dict(call.trailing_metadata())["x-request-id"]


def asked_over_http(running: RunningServer, body: object, headers: dict[str, str]) -> tuple[int, str]:
    """Status and the id that came back."""
    request = urllib.request.Request(
        f"{running.url}/v1/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers["x-request-id"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["x-request-id"]


def test_an_id_comes_back_over_grpc(stub: Any) -> None:
    response, call = stub.Embed.with_call(pb.EmbedRequest(texts=TEXTS), timeout=30, metadata=(("x-request-id", "abc"),))
    assert (returned_id(call), response.request_id) == ("abc", "abc")
    assert "sluice-tokens" in dict(call.trailing_metadata()), "the other trailers stay"
    response, call = stub.Embed.with_call(pb.EmbedRequest(texts=TEXTS), timeout=30)
    assert GENERATED.fullmatch(returned_id(call))
    assert response.request_id == returned_id(call)


def test_an_id_comes_back_with_a_refusal_beside_its_details(stub: Any, minilm: RunningServer, monkeypatch: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.Embed(pb.EmbedRequest(), timeout=30, metadata=(("x-request-id", "abc"),))
    assert returned_id(refused.value) == "abc"
    monkeypatch.setattr(minilm.server.engine.lifecycle, "check_accepts", _overloaded)
    with pytest.raises(grpc.RpcError) as refused:
        stub.Embed(pb.EmbedRequest(texts=TEXTS), timeout=30, metadata=(("x-request-id", "abc"),))
    trailers = dict(refused.value.trailing_metadata())
    assert trailers["x-request-id"] == "abc"
    assert int(trailers["grpc-retry-pushback-ms"]) > 0


def _overloaded() -> None:
    raise OverloadedError("the queue is long", 100, "drain_limit")


def test_an_id_comes_back_from_a_stream(stub: Any) -> None:
    call = stub.EmbedStream(iter([pb.EmbedRequest(request_id="1", texts=TEXTS)]), timeout=30)
    assert [answer.request_id for answer in call] == ["1"]
    assert GENERATED.fullmatch(returned_id(call))


def test_the_request_id_of_an_infer_request_counts(channel: grpc.Channel) -> None:
    ids = np.array([[101, 102]], "<i4")
    request = inference_pb2.InferRequest(
        request_id="its-own", input_ids_bytes=ids.tobytes(), attention_mask_bytes=np.ones_like(ids).tobytes(),
        num_items=1, seq_len=2,
    )  # fmt: skip
    infer = inference_pb2_grpc.InferenceServiceStub(channel).Infer
    assert returned_id(infer.with_call(request, timeout=30)[1]) == "its-own"
    assert returned_id(infer.with_call(request, timeout=30, metadata=(("x-request-id", "abc"),))[1]) == "abc"


@pytest.mark.parametrize(("body", "status"), [({"input": "a"}, 200), ({"input": []}, 400), ("no object", 400)])
def test_an_id_comes_back_over_http(minilm: RunningServer, body: object, status: int) -> None:
    assert asked_over_http(minilm, body, {"X-Request-Id": "abc"}) == (status, "abc")
    assert asked_over_http(minilm, body, {"traceparent": TRACEPARENT}) == (status, TRACE_ID)
    assert GENERATED.fullmatch(asked_over_http(minilm, body, {})[1])


def test_at_info_a_request_leaves_no_line(minilm: RunningServer, stub: Any, lines: Lines) -> None:
    stub.Embed(pb.EmbedRequest(texts=TEXTS), timeout=30)
    with pytest.raises(grpc.RpcError):
        stub.Embed(pb.EmbedRequest(), timeout=30)
    assert asked_over_http(minilm, {"input": "a"}, {})[0] == 200
    assert lines() == []


@pytest.mark.usefixtures("at_debug")
def test_at_debug_each_request_is_one_line(stub: Any, lines: Lines) -> None:
    stub.Embed(pb.EmbedRequest(texts=TEXTS), timeout=30, metadata=(("x-request-id", "abc"),))
    (line,) = (one for one in lines() if one["level"] == "DEBUG" and one["name"].endswith("observer"))
    assert {key: line[key] for key in ("request_id", "api", "code", "tokens", "inputs")} == {
        "request_id": "abc", "api": "embed", "code": "OK", "tokens": 4, "inputs": 1,
    }  # fmt: skip
    assert line["total_ms"] >= line["queue_ms"] + line["compute_ms"] > 0


@pytest.mark.usefixtures("at_debug")
def test_the_requests_of_a_stream_are_told_apart(stub: Any, lines: Lines) -> None:
    requests = [pb.EmbedRequest(request_id=name, texts=TEXTS) for name in ("1", "2")]
    assert len(list(stub.EmbedStream(iter(requests), timeout=30, metadata=(("x-request-id", "abc"),)))) == 2
    said = [one["request_id"] for one in lines() if one["name"].endswith("observer")]
    assert sorted(said) == ["abc", "abc/1", "abc/2"]


def two_errors(lines: Lines, request_id: str) -> list[dict[str, Any]]:
    """The second is written once the call has ended, and its caller may hear of the end before."""
    deadline = time.monotonic() + 10
    wanted = ("ERROR", request_id)
    while len(found := [line for line in lines() if (line["level"], line.get("request_id")) == wanted]) < 2:
        assert time.monotonic() < deadline, found
    return found


def test_a_failure_of_ours_is_an_error_with_its_id(
    minilm: RunningServer, stub: Any, lines: Lines, monkeypatch: Any
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(minilm.server.service, "embed_texts", fail)
    with pytest.raises(grpc.RpcError) as failed:
        stub.Embed(pb.EmbedRequest(texts=TEXTS), timeout=30, metadata=(("x-request-id", "over-grpc"),))
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    assert asked_over_http(minilm, {"input": "a"}, {"x-request-id": "over-http"}) == (500, "over-http")
    for name in ("over-grpc", "over-http"):
        cause, summary = two_errors(lines, name)
        assert "ZeroDivisionError: a mistake" in cause["exc_info"]
        assert summary["code"] in {"INTERNAL", "500"}


# --- lines --------------------------------------------------------------------------------------


def formatted(log_format: str, message: str = "said") -> str:
    record = logging.LogRecord("sluice_server.x", logging.INFO, __file__, 1, message, None, None)
    assert logs.RequestFilter().filter(record)
    return logs.formatter(log_format).format(record)


def test_a_line_outside_of_requests_has_no_id() -> None:
    assert set(json.loads(formatted("json"))) == {"time", "level", "name", "message"}
    assert formatted("text").endswith("INFO sluice_server.x [-]: said")


async def test_a_line_of_a_request_bears_its_id_and_only_in_its_own_task() -> None:
    observer = RequestObserver(Counters())

    async def serve(name: str) -> tuple[str, str]:
        scope = observer.begin(EMBED, {"x-request-id": name})
        await asyncio.sleep(0)
        within = formatted("json")
        observer.end(scope, "OK")
        return json.loads(within)["request_id"], formatted("text")

    for name, (within, after) in zip("ab", await asyncio.gather(serve("a"), serve("b")), strict=True):
        assert within == name
        assert "[-]" in after, "the connection's next request is another one"


def test_a_stream_s_message_keeps_a_valid_id_where_both_are_too_long() -> None:
    observer = RequestObserver(Counters())
    stream = observer.begin(EMBED_STREAM, {"x-request-id": "s" * 100}, is_stream=True)
    assert observer.begin_message(stream, "m" * 100).request_id == "s" * 100
    scopes.enter(None)


def test_loggers_that_chatter_are_quiet() -> None:
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = root.handlers[:]
    try:
        logs.configure("DEBUG", "json")
        assert not logging.getLogger("botocore.credentials").isEnabledFor(logging.INFO)
        assert logging.getLogger("sluice_server").isEnabledFor(logging.DEBUG)
    finally:
        root.handlers, root.level = handlers, level
