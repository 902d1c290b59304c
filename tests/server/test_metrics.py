"""What /metrics says: every metric is documented, and each counts what it names."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server.backend import BatchOutput
from sluice_server.counters import Counters
from sluice_server.errors import BatchFailedError, DrainingError, OverloadedError
from sluice_server.jobs import BatchResult
from sluice_server.metrics import Metrics

from tests.server.conftest import RunningServer, running_server
from tests.server.test_apis import get

Exposition = dict[str, dict[frozenset[tuple[str, str]], float]]
METRICS_MD = Path(__file__).parents[2] / "server/METRICS.md"
REQUEST = pb.EmbedRequest(texts=pb.Texts(values=["a text", "another one"]))


def scraped(running: RunningServer) -> Exposition:
    """Samples by name and labels."""
    samples: Exposition = {}
    for family in text_string_to_metric_families(get(f"{running.url}/metrics")):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def settled(running: RunningServer) -> Exposition:
    """Samples once no call is under way: a caller may hear that its call was refused just before that is counted."""
    deadline = time.monotonic() + 10
    while any((samples := scraped(running))["sluice_requests_in_flight"].values()):
        assert time.monotonic() < deadline, samples["sluice_requests_in_flight"]
    return samples


def value(samples: Exposition, name: str, **labels: str) -> float:
    return samples.get(name, {}).get(frozenset(labels.items()), 0.0)


def added(before: Exposition, after: Exposition, name: str, **labels: str) -> float:
    return value(after, name, **labels) - value(before, name, **labels)


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of every metric of the table."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \|", METRICS_MD.read_text(), re.MULTILINE)
    return {
        name: (kind, frozenset() if labels.strip() == "-" else frozenset(labels.strip().split(", ")))
        for name, kind, labels in rows
        if kind in {"counter", "gauge", "histogram"}
    }


def exposed(text: str) -> Iterator[tuple[str, tuple[str, frozenset[str]]]]:
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = frozenset(key for sample in family.samples for key in sample.labels) - {"le"}
        yield name, (family.type, labels)


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return embeddings_pb2_grpc.EmbeddingsStub(channel)


def test_the_table_of_metrics_is_what_a_server_exposes(minilm: RunningServer, stub: Any) -> None:
    stub.Embed(REQUEST, timeout=30)
    table = documented()
    # A P95 needs more answers than one, and what calls wait is known while they come; what CloudWatch and front ends do is
    # there only with them.
    sometimes = {
        "sluice_p95_latency_seconds", "sluice_accept_wait_seconds", "sluice_cloudwatch_dropped_intervals_total",
        "sluice_front_ends", "sluice_front_end_deaths_total",
    }  # fmt: skip
    seen = dict(exposed(get(f"{minilm.url}/metrics")))
    assert seen == {name: row for name, row in table.items() if name in seen or name not in sometimes}


def test_units_stand_in_the_names() -> None:
    units = ("_seconds", "_tokens", "_bytes", "_ratio", "_rows", "_batches", "_requests", "_intervals", "_per_second")
    counted = ("_info", "_fds", "_serving", "_in_flight", "_front_ends", "_deaths")
    for name in documented():
        assert name.removesuffix("_total").endswith((*units, *counted)), name


def test_a_request_is_counted_by_api_and_code(minilm: RunningServer, stub: Any) -> None:
    before = settled(minilm)
    stub.Embed(REQUEST, timeout=30)
    get(f"{minilm.url}/v1/embeddings", {"input": "a text"})
    get(f"{minilm.url}/v1/embeddings", {"input": []}, expect=400)
    with pytest.raises(grpc.RpcError):
        stub.Embed(pb.EmbedRequest(), timeout=30)
    after = settled(minilm)
    for api, code in (("embed", "OK"), ("openai", "200"), ("openai", "400"), ("embed", "INVALID_ARGUMENT")):
        assert added(before, after, "sluice_requests_total", api=api, code=code) == 1, (api, code)
    for name in ("tokenize", "queue", "compute", "request"):
        assert added(before, after, f"sluice_{name}_seconds_count") == 2
    assert set(after["sluice_requests_in_flight"].values()) == {0.0}


def test_a_caller_without_the_token_is_counted_and_has_an_id() -> None:
    with running_server(model_path="/no/such/model", api_token="a-secret") as running:
        running.wait_for_phase("failed")
        with running.channel() as channel, pytest.raises(grpc.RpcError) as refused:
            embeddings_pb2_grpc.EmbeddingsStub(channel).Embed(REQUEST, timeout=30, metadata=(("x-request-id", "abc"),))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert dict(refused.value.trailing_metadata())["x-request-id"] == "abc"
        get(f"{running.url}/v1/embeddings", {"input": "a"}, expect=401)
        samples = settled(running)
        for api, code in (("embed", "UNAUTHENTICATED"), ("openai", "401")):
            assert value(samples, "sluice_requests_total", api=api, code=code) == 1


def test_each_request_of_a_stream_counts_and_the_stream_itself_does_not(minilm: RunningServer, stub: Any) -> None:
    before = settled(minilm)
    good = pb.EmbedRequest(request_id="good", texts=pb.Texts(values=["a text"]))
    assert len(list(stub.EmbedStream(iter([good, pb.EmbedRequest(request_id="bad")]), timeout=30))) == 2
    after = settled(minilm)
    assert added(before, after, "sluice_requests_total", api="embed_stream", code="OK") == 1
    assert added(before, after, "sluice_requests_total", api="embed_stream", code="INVALID_ARGUMENT") == 1
    assert value(after, "sluice_requests_in_flight", api="embed_stream") == 0


def test_a_caller_that_leaves_is_counted_as_gone(minilm: RunningServer, stub: Any, monkeypatch: Any) -> None:
    arrived = _block(minilm, monkeypatch)
    before = settled(minilm)
    call = stub.Embed.future(REQUEST, timeout=30)
    arrived()
    assert added(before, scraped(minilm), "sluice_requests_in_flight", api="embed") == 1
    call.cancel()
    assert added(before, settled(minilm), "sluice_requests_total", api="embed", code="CANCELLED") == 1


def _block(running: RunningServer, monkeypatch: Any) -> Any:
    """Requests wait for ever; returns how to wait for one to arrive."""
    import asyncio
    import threading

    reached = threading.Event()

    async def wait(*_: object) -> Any:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(running.server.service, "embed_texts", wait)
    return lambda: reached.wait(10)


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (OverloadedError("the queue is long", 100, "drain_limit"), "drain_limit", "RESOURCE_EXHAUSTED"),
        (DrainingError("the server is shutting down"), "draining", "UNAVAILABLE"),
    ],
)
def test_a_refusal_is_counted_by_reason_in_requests_and_tokens(
    minilm: RunningServer, stub: Any, monkeypatch: Any, error: Exception, reason: str, code: str
) -> None:
    def refuse() -> None:
        raise error

    before = settled(minilm)
    assert frozenset({("reason", reason)}) in before["sluice_rejected_requests_total"], "there from the start"
    monkeypatch.setattr(minilm.server.engine.lifecycle, "check_accepts", refuse)
    ids = pb.TokenIds(ids=np.array([101, 102, 102], "<i4").tobytes(), lengths=np.array([3], "<i4").tobytes())
    with pytest.raises(grpc.RpcError):
        stub.Embed(pb.EmbedRequest(token_ids=ids), timeout=30)
    after = settled(minilm)
    assert added(before, after, "sluice_rejected_requests_total", reason=reason) == 1
    assert added(before, after, "sluice_rejected_tokens_total", reason=reason) == 3
    assert added(before, after, "sluice_requests_total", api="embed", code=code) == 1


def test_batches_are_counted_in_rows_tokens_and_time(minilm: RunningServer) -> None:
    metrics = Metrics(minilm.server.engine)
    output = BatchOutput(np.zeros((5, 2), np.float32), computed_tokens=96)
    metrics.observe_batch(BatchResult(output, None, started_at=0.0, busy_seconds=0.25))
    metrics.observe_batch(BatchResult(None, BatchFailedError("gone"), started_at=0.0, busy_seconds=0.25))
    sample = metrics.registry.get_sample_value
    assert [sample(f"sluice_batch_{name}_sum") for name in ("rows", "tokens", "seconds")] == [5, 96, 0.25]
    assert sample("sluice_failed_batches_total") == 1


def test_the_device_s_batches_reach_the_histograms(minilm: RunningServer, stub: Any) -> None:
    before = settled(minilm)
    stub.Embed(REQUEST, timeout=30)
    after = settled(minilm)
    assert added(before, after, "sluice_batch_rows_sum") == 2
    computed = added(before, after, "sluice_computed_tokens_total") + added(before, after, "sluice_padded_tokens_total")
    assert added(before, after, "sluice_batch_tokens_sum") == computed > 0


def test_padding_waste_is_unknown_before_anything_was_computed() -> None:
    assert Counters().padding_waste is None
    assert Counters(computed_tokens=75, padded_tokens=25).padding_waste == 0.25
