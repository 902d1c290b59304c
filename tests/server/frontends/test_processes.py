"""FRONT_ENDS=2: callers see what one process shows them, whatever happens to one of several."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from gpu_inference import inference_pb2, inference_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_client import ChannelOptions, EmbeddingClient, EmbeddingError

from tests.server.certificates import make_certificates
from tests.server.conftest import RunningServer
from tests.server.frontends.conftest import Processes, processes, until
from tests.server.test_apis import TEXTS, get, tensor
from tests.server.test_metrics import scraped, value
from tests.server.test_tracing import Collector, grpc_receiver

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
ONE = pb.EmbedRequest(texts=pb.Texts(values=["a text"]))
# 82 tokens, and estimated at 111.
PASSAGE = "a rather long text " * 20


def passages(count: int) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=pb.Texts(values=[PASSAGE] * count))


@pytest.fixture(scope="module")
def running(model_folder: Path) -> Iterator[Processes]:
    with processes(
        MODEL_PATH=str(model_folder), LOG_LEVEL="DEBUG", BACKPRESSURE_MAX_DRAIN_MS="60000",
        BACKPRESSURE_MAX_QUEUED_TOKENS="45000",
    ) as started:  # fmt: skip
        started.until_serving()
        yield started


@pytest.fixture
def channels(running: Processes) -> Iterator[list[grpc.Channel]]:
    """So many that every front end has one."""
    with contextlib.ExitStack() as stack:
        opened: list[grpc.Channel] = []

        def all_have_one() -> bool:
            opened.append(stack.enter_context(running.channel()))
            grpc.channel_ready_future(opened[-1]).result(10)
            return len(running.front_ends()) == 2 and all(map(running.connections, running.front_ends()))

        until(all_have_one)
        until(lambda: all(health_of(channel) == SERVING for channel in opened))
        yield opened


def health_of(channel: grpc.Channel) -> Any:
    request = health_pb2.HealthCheckRequest(service="sluice.v1.Embeddings")
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status


def stub(channel: grpc.Channel) -> Any:
    return embeddings_pb2_grpc.EmbeddingsStub(channel)


def both(channels: list[grpc.Channel], minilm: RunningServer, method: str, request: Any) -> tuple[list[Any], Any]:
    """What every front end answers, and what one process does, each with the names of its trailers."""

    def asked(channel: grpc.Channel) -> Any:
        answer, call = getattr(stub(channel), method).with_call(request, timeout=30)
        return answer, sorted(key for key, _ in call.trailing_metadata())

    with minilm.channel() as alone:
        return [asked(channel) for channel in channels], asked(alone)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": False},
        {"dimensions": 64},
        {"output_dtype": pb.DATA_TYPE_FLOAT16},
        {"output_dtype": pb.DATA_TYPE_INT8, "truncate": pb.TRUNCATE_START},
    ],
)
def test_texts_get_the_same_embeddings(channels: Any, minilm: RunningServer, options: dict[str, Any]) -> None:
    texts = [*TEXTS, "word " * 400]
    answers, alone = both(channels, minilm, "Embed", pb.EmbedRequest(texts=pb.Texts(values=texts), **options))
    for answer, trailers in answers:
        assert np.abs(tensor(answer).astype(float) - tensor(alone[0]).astype(float)).max() <= (
            1 if tensor(answer).dtype == np.int8 else 1e-3 if "output_dtype" in options else 1e-4
        )
        assert answer.tokens_used == alone[0].tokens_used
        assert list(answer.truncated_inputs) == list(alone[0].truncated_inputs) == [5]
        assert trailers == alone[1]


def test_ids_get_the_same_embeddings(channels: Any, minilm: RunningServer) -> None:
    ids, lengths = np.array([101, 1037, 3793, 102, 101, 102], "<i4"), np.array([4, 2], "<i4")
    request = pb.EmbedRequest(token_ids=pb.TokenIds(ids=ids.tobytes(), lengths=lengths.tobytes()))
    answers, alone = both(channels, minilm, "Embed", request)
    for answer, trailers in answers:
        assert np.abs(tensor(answer) - tensor(alone[0])).max() <= 1e-4
        assert trailers == alone[1]


def test_the_seed_systems_api_answers_the_same(channels: Any, minilm: RunningServer) -> None:
    ids, mask = np.array([[101, 1037, 3793, 102], [101, 102, 0, 0]], "<i4"), np.array([[1] * 4, [1, 1, 0, 0]], "<i4")
    request = inference_pb2.InferRequest(
        request_id="r", num_items=2, seq_len=4, input_ids_bytes=ids.tobytes(), attention_mask_bytes=mask.tobytes()
    )
    with minilm.channel() as one:
        answers = [
            inference_pb2_grpc.InferenceServiceStub(channel).Infer(request, timeout=30) for channel in (*channels, one)
        ]
        healths = [
            inference_pb2_grpc.InferenceServiceStub(channel).HealthCheck(inference_pb2.HealthRequest(), timeout=30)
            for channel in (*channels, one)
        ]
    rows = [np.frombuffer(answer.embeddings_bytes, "<f4") for answer in answers]
    assert max(np.abs(row - rows[-1]).max() for row in rows) <= 1e-4
    assert {answer.embedding_dim for answer in answers} == {384}
    assert all(health.status == "healthy" and health.accepting_requests for health in healths)
    assert all(health.service_rate_tokens_per_sec > 0 for health in healths)


def test_the_model_is_described_the_same(channels: Any, minilm: RunningServer) -> None:
    answers, alone = both(channels, minilm, "GetInfo", pb.GetInfoRequest())
    assert [answer for answer, _ in answers] == [alone[0]] * len(channels)


def test_a_stream_is_answered_and_a_bad_request_alone_fails(channels: Any) -> None:
    for channel in channels:
        requests = [pb.EmbedRequest(request_id=str(i), texts=pb.Texts(values=[text])) for i, text in enumerate(TEXTS)]
        requests.insert(2, pb.EmbedRequest(request_id="bad", texts=pb.Texts()))
        answers = {answer.request_id: answer for answer in stub(channel).EmbedStream(iter(requests), timeout=30)}
        assert answers.keys() == {"bad", *map(str, range(len(TEXTS)))}
        assert answers["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert all(not answer.HasField("error") for name, answer in answers.items() if name != "bad")


def test_a_bad_request_is_the_callers_fault(channels: Any) -> None:
    bad = pb.EmbedRequest(texts=pb.Texts(values=["word " * 400]), truncate=pb.TRUNCATE_NONE)
    for channel in channels:
        with pytest.raises(grpc.RpcError) as refused:
            stub(channel).Embed(bad, timeout=30)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "input 0 has 402 tokens" in refused.value.details()
        assert len(tensor(stub(channel).Embed(ONE, timeout=30))) == 1
    until(lambda: running_is_empty(channels))


def running_is_empty(channels: Any) -> bool:
    health = inference_pb2_grpc.InferenceServiceStub(channels[0]).HealthCheck(inference_pb2.HealthRequest(), timeout=30)
    return not health.queued_tokens


def test_under_overload_callers_are_told_when_to_come_and_who_leaves_is_dropped(
    running: Processes, channels: Any
) -> None:
    before = running.health()
    first = stub(channels[0]).Embed.future(passages(250), timeout=60)
    until(lambda: running.health()["queued_tokens"] > 20_000)
    left = stub(channels[-1]).Embed.future(passages(120), timeout=60)
    until(lambda: running.health()["admitted_tokens_total"] - before["admitted_tokens_total"] > 29_000)
    with pytest.raises(grpc.RpcError) as refused:
        # Long enough for the deadline not to be what refuses it.
        stub(channels[-1]).Embed(passages(250), timeout=600)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    left.cancel()
    until(lambda: running.health()["expired_tokens_total"] - before["expired_tokens_total"] > 0)
    assert len(tensor(first.result())) == 250
    until(lambda: running.health()["queued_tokens"] == 0)


def test_what_front_ends_serve_stands_in_the_servers_metrics(running: Processes, channels: Any) -> None:
    def counted() -> tuple[float, ...]:
        samples = scraped(running)  # type: ignore[arg-type]
        return (
            value(samples, "sluice_requests_total", api="embed", code="OK"),
            value(samples, "sluice_requests_total", api="embed", code="INVALID_ARGUMENT"),
            value(samples, "sluice_request_seconds_count"),
            value(samples, "sluice_tokenize_seconds_count"),
            sum(samples["sluice_requests_in_flight"].values()),
        )

    until(lambda: counted()[-1] == 0)
    before = counted()
    for channel in channels:
        stub(channel).Embed(ONE, timeout=30)
        with pytest.raises(grpc.RpcError):
            stub(channel).Embed(pb.EmbedRequest(), timeout=30)
    n = len(channels)
    until(lambda: np.subtract(counted(), before).tolist() == [n, n, n, n, 0], within_seconds=10)


def test_a_front_ends_log_lines_bear_the_request_id(running: Processes, channels: Any) -> None:
    for place, channel in enumerate(channels):
        stub(channel).Embed(ONE, timeout=30, metadata=(("x-request-id", f"known-{place}"),))
    for place in range(len(channels)):
        until(lambda place=place: [x for x in running.said("embed OK in") if x["request_id"] == f"known-{place}"])


def test_no_front_end_holds_the_model_or_what_computes_it(running: Processes, channels: Any) -> None:
    for pid in running.front_ends():
        assert "/torch/" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_front_end_that_is_killed_loses_its_own_callers_only_and_another_one_comes(
    running: Processes, channels: Any
) -> None:
    victim, other = running.front_ends()
    until(lambda: running.health()["queued_tokens"] == 0)
    calls = [stub(channel).Embed.future(passages(40), timeout=60) for channel in channels]
    until(lambda: running.health()["queued_tokens"] > 0)
    os.kill(victim, signal.SIGKILL)
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    new = until(lambda: {*running.front_ends()} - {victim, other})
    assert len(new) == 1
    assert "exit code -9" in running.said("a front end died")[-1]["message"]
    until(lambda: running.health()["queued_tokens"] == 0)
    until(lambda: [x for x in running.said("a front end listens") if x["pid"] in new])
    assert running.health()["phase"]["name"] == "serving"
    samples = scraped(running)  # type: ignore[arg-type]
    assert value(samples, "sluice_front_ends") == 2
    assert value(samples, "sluice_front_end_deaths_total") == 1
    with contextlib.ExitStack() as stack:

        def new_one_serves() -> bool:
            channel = stack.enter_context(running.channel())
            until(lambda: health_of(channel) == SERVING)
            assert len(tensor(stub(channel).Embed(ONE, timeout=30))) == 1
            return running.connections(*new) > 0

        until(new_one_serves)


def test_a_front_end_speaks_tls_asks_for_the_token_and_sends_its_callers_traces(
    model_folder: Path, tmp_path: Path
) -> None:
    collector, certificates = Collector(), make_certificates(tmp_path)
    endpoint, stop = grpc_receiver(collector)
    settings = {name.upper(): value for name, value in certificates.server_settings.items()}
    with processes(
        1, MODEL_PATH=str(model_folder), API_TOKEN="a-secret", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_BSP_SCHEDULE_DELAY="100", **settings,
    ) as running:  # fmt: skip
        running.until_serving()

        def embed(channel: ChannelOptions | None) -> Any:
            with EmbeddingClient(running.grpc_target, channel_options=channel, deadline_seconds=5) as client:
                return client.embed(["a text", "another"])

        assert embed(certificates.client(token="a-secret")).shape == (2, 384)
        service, span = collector.wait_for("sluice.v1.Embeddings/Embed")
        said = {one.key: one.value for one in span.attributes}
        assert (service, said["sluice.inputs"].int_value) == ("sluice-server", 2)
        not_connected = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        for channel, codes in (
            (certificates.client(token=None), {grpc.StatusCode.UNAUTHENTICATED}),
            (certificates.client(token="a-secret", with_certificate=False), not_connected),
            (None, not_connected),
        ):
            with pytest.raises(EmbeddingError) as refused:
                embed(channel)
            assert refused.value.code in codes
    stop()


def test_sigterm_finishes_what_was_admitted_and_nothing_stays(model_folder: Path) -> None:
    with processes(
        MODEL_PATH=str(model_folder), SHUTDOWN_PROPAGATION_SECONDS="1", SHUTDOWN_DRAIN_SECONDS="60",
        BACKPRESSURE_MAX_DRAIN_MS="60000",
    ) as running, running.channel() as channel:  # fmt: skip
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=110)
        assert next(watch).status == NOT_SERVING
        running.until_serving()
        assert next(watch).status == SERVING
        calls = [stub(channel).Embed.future(passages(60), timeout=60) for _ in range(3)]
        until(lambda: running.health()["queued_tokens"])
        front_ends = running.front_ends()
        for pid in front_ends:
            # As a terminal's Ctrl-C would reach the whole group.
            os.kill(pid, signal.SIGINT)
        running.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        assert len(tensor(stub(channel).Embed(ONE, timeout=60))) == 1, "the word spreads first"
        assert [len(tensor(call.result())) for call in calls] == [60] * 3
        assert running.process.wait(30) == 0
        assert not [pid for pid in front_ends if Path(f"/proc/{pid}").exists()]
    assert not running.said("a front end died")


def test_front_ends_end_at_once_when_the_main_process_is_killed() -> None:
    with processes(MODEL_PATH="/no/such/model") as running:
        front_ends = running.front_ends()
        assert len(front_ends) == 2
        running.process.kill()
        until(lambda: not [pid for pid in front_ends if Path(f"/proc/{pid}").exists()], within_seconds=5)


def test_front_ends_that_die_again_and_again_fail_the_server(model_folder: Path) -> None:
    with processes(1, MODEL_PATH=str(model_folder)) as running:
        for deaths in range(1, 5):
            (pid,) = until(running.front_ends)
            os.kill(pid, signal.SIGKILL)
            until(lambda deaths=deaths: len(running.said("a front end died")) == deaths)
        assert "front ends die again and again" in get(f"{running.url}/livez", expect=503)


def test_a_failed_server_says_why_through_its_front_ends_and_asks_for_the_token() -> None:
    with processes(1, MODEL_PATH="/no/such/model", API_TOKEN="a-secret") as running, running.channel() as channel:
        until(lambda: running.health()["phase"]["name"] == "failed")
        with pytest.raises(grpc.RpcError) as refused:
            stub(channel).Embed(ONE, timeout=10, metadata=(("authorization", "Bearer a-secret"),))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "there is no folder /no/such/model" in refused.value.details()
        with pytest.raises(grpc.RpcError) as unknown:
            stub(channel).Embed(ONE, timeout=10)
        assert unknown.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert health_of(channel) == NOT_SERVING


def test_a_port_that_is_taken_ends_the_server_with_a_sentence() -> None:
    with processes(1, MODEL_PATH="/no/such/model") as first:
        with processes(1, MODEL_PATH="/no/such/model", GRPC_PORT=str(first.ports["grpc_port"])) as second:
            assert second.process.wait(30) == 1
        assert second.said("cannot listen on 127.0.0.1:")
