"""Every API gives the embeddings that sentence-transformers gives, and says so in its own form."""

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2  # noqa: F401 - its types must be known to read details
from gpu_inference import inference_pb2, inference_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc

from tests.server.conftest import RunningServer

TEXTS = [
    "How do I return a pair of shoes?",
    "The cat sat on the mat.",
    "x",
    "Wireless headphones with noise cancelling and forty hours of battery life. " * 12,
    "",
]
SCHEMA = json.loads((Path(__file__).parents[2] / "proto/health.schema.json").read_text())


def cosines(left: Any, right: Any) -> Any:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def tensor(response: pb.EmbedResponse) -> Any:
    dtypes = {pb.DATA_TYPE_FLOAT32: "<f4", pb.DATA_TYPE_FLOAT16: "<f2", pb.DATA_TYPE_INT8: "i1"}
    data = np.frombuffer(response.embeddings.data, dtypes[response.embeddings.dtype])
    return data.reshape(tuple(response.embeddings.shape))


@pytest.fixture(scope="module")
def expected(reference: Any) -> Any:
    return reference.encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(scope="module")
def ragged(reference: Any) -> tuple[Any, Any]:
    rows = [np.array(reference.tokenizer(t, truncation=True, max_length=256)["input_ids"], dtype="<i4") for t in TEXTS]
    return np.concatenate(rows), np.array([len(r) for r in rows], dtype="<i4")


@pytest.fixture
def embeddings(channel: grpc.Channel) -> Any:
    return embeddings_pb2_grpc.EmbeddingsStub(channel)


@pytest.fixture
def inference(channel: grpc.Channel) -> Any:
    return inference_pb2_grpc.InferenceServiceStub(channel)


def get(url: str, body: Any = None, *, expect: int = 200) -> Any:
    data = None if body is None else json.dumps(body).encode()
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, data), timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        text = response.read().decode()
    assert response.status == expect, text
    return text


def test_texts_give_the_reference_embeddings(embeddings: Any, expected: Any) -> None:
    response = embeddings.Embed(pb.EmbedRequest(request_id="a", texts=pb.Texts(values=TEXTS)), timeout=30)
    assert cosines(tensor(response), expected).min() >= 0.9999
    assert response.request_id == "a"
    assert list(response.truncated_inputs) == []
    assert response.timings.total_ms >= response.timings.compute_ms > 0


def test_ragged_ids_give_the_reference_embeddings(embeddings: Any, expected: Any, ragged: Any) -> None:
    ids, lengths = ragged
    request = pb.EmbedRequest(token_ids=pb.TokenIds(ids=ids.tobytes(), lengths=lengths.tobytes()))
    response = embeddings.Embed(request, timeout=30)
    assert cosines(tensor(response), expected).min() >= 0.9999
    assert response.tokens_used == ids.size


def test_a_stream_answers_every_request_by_its_id_and_a_bad_one_alone_fails(embeddings: Any, expected: Any) -> None:
    requests = [pb.EmbedRequest(request_id=str(i), texts=pb.Texts(values=[t])) for i, t in enumerate(TEXTS)]
    requests.insert(2, pb.EmbedRequest(request_id="bad", texts=pb.Texts()))
    answers = {a.request_id: a for a in embeddings.EmbedStream(iter(requests), timeout=30)}
    assert answers.keys() == {"bad", *map(str, range(len(TEXTS)))}
    assert answers["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    rows = np.concatenate([tensor(answers[str(i)].response) for i in range(len(TEXTS))])
    assert cosines(rows, expected).min() >= 0.9999


def test_a_long_stream_is_answered_within_its_window(embeddings: Any) -> None:
    requests = (pb.EmbedRequest(request_id=str(i), texts=pb.Texts(values=["short"])) for i in range(200))
    answers = [a.request_id for a in embeddings.EmbedStream(requests, timeout=60)]
    assert sorted(answers, key=int) == list(map(str, range(200)))


# int8 rounds each of 384 values by up to 0.5/127: an error of sqrt(384/12)/127 = 0.0445, so a cosine of 0.999.
@pytest.mark.parametrize(("dtype", "least"), [(pb.DATA_TYPE_FLOAT16, 0.99999), (pb.DATA_TYPE_INT8, 0.9985)])
def test_output_types_keep_the_direction(embeddings: Any, expected: Any, dtype: int, least: float) -> None:
    response = embeddings.Embed(pb.EmbedRequest(texts=pb.Texts(values=TEXTS), output_dtype=dtype), timeout=30)
    assert response.embeddings.dtype == dtype
    assert cosines(tensor(response).astype(np.float32), expected).min() >= least


def test_fewer_dimensions_are_cut_then_normalized(embeddings: Any, expected: Any) -> None:
    response = embeddings.Embed(pb.EmbedRequest(texts=pb.Texts(values=TEXTS), dimensions=64), timeout=30)
    rows = tensor(response)
    assert rows.shape == (len(TEXTS), 64)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert cosines(rows, expected[:, :64]).min() >= 0.9999


def test_a_text_that_is_too_long_is_cut_and_flagged_or_refused(embeddings: Any, reference: Any) -> None:
    words = "word " * 400
    request = pb.EmbedRequest(texts=pb.Texts(values=["short", words]))
    response = embeddings.Embed(request, timeout=30)
    assert list(response.truncated_inputs) == [1]
    assert cosines(tensor(response), reference.encode(["short", words])).min() >= 0.9999
    request.truncate = pb.TRUNCATE_NONE
    with pytest.raises(grpc.RpcError) as refused:
        embeddings.Embed(request, timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "input 1 has 402 tokens; the model takes 256" in refused.value.details()


def test_an_embedding_does_not_depend_on_its_neighbours(embeddings: Any) -> None:
    alone = embeddings.Embed(pb.EmbedRequest(texts=pb.Texts(values=[TEXTS[0]])), timeout=30)
    among = embeddings.Embed(pb.EmbedRequest(texts=pb.Texts(values=TEXTS * 4)), timeout=30)
    assert np.abs(tensor(alone)[0] - tensor(among)[:: len(TEXTS)]).max() <= 1e-5


def padded(ragged: Any, length: int) -> tuple[Any, Any]:
    ids, lengths = ragged
    rows = np.split(ids, np.cumsum(lengths)[:-1])
    out, mask = np.zeros((len(rows), length), "<i4"), np.zeros((len(rows), length), "<i4")
    for place, row in enumerate(rows):
        out[place, : len(row)], mask[place, : len(row)] = row, 1
    return out, mask


def test_the_seed_systems_bytes_give_the_reference_embeddings(inference: Any, expected: Any, ragged: Any) -> None:
    ids, mask = padded(ragged, 256)
    response = inference.Infer(
        inference_pb2.InferRequest(
            request_id="r", input_ids_bytes=ids.tobytes(), attention_mask_bytes=mask.tobytes(),
            num_items=len(ids), seq_len=256, bucket_max_len=256,
        ),
        timeout=30,
    )  # fmt: skip
    assert (response.status, response.request_id) == (inference_pb2.COMPLETED, "r")
    rows = np.frombuffer(response.embeddings_bytes, "<f4").reshape(-1, response.embedding_dim)
    assert cosines(rows, expected).min() >= 0.9999


def test_the_seed_systems_older_rows_give_the_reference_embeddings(inference: Any, expected: Any, ragged: Any) -> None:
    ids, mask = padded(ragged, 256)
    request = inference_pb2.InferRequest(
        input_ids=[inference_pb2.TensorRow(values=row) for row in ids],
        attention_mask=[inference_pb2.TensorRow(values=row) for row in mask],
        bucket_max_len=256,
    )
    rows = np.array([row.values for row in inference.Infer(request, timeout=30).embeddings])
    assert cosines(rows, expected).min() >= 0.9999


def test_the_seed_systems_own_client_succeeds(minilm: RunningServer) -> None:
    script = (
        "import grpc, sys, coral_gpu_inference.test_client as client\n"
        "make = grpc.aio.insecure_channel\n"
        "client.grpc.aio.insecure_channel = lambda target: make(sys.argv[1])\n"
        "client.asyncio.run(client.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, minilm.grpc_target], capture_output=True, text=True, timeout=120, check=True
    )
    assert "Success!" in done.stdout, done.stdout
    assert "Received 3 embeddings" in done.stdout
    assert "status: healthy" in done.stdout


def test_openais_request_gives_the_reference_embeddings(minilm: RunningServer, expected: Any, ragged: Any) -> None:
    url = f"{minilm.url}/v1/embeddings"
    as_floats = json.loads(get(url, {"input": TEXTS, "model": "any"}))
    rows = np.array([d["embedding"] for d in as_floats["data"]])
    assert cosines(rows, expected).min() >= 0.9999
    as_base64 = json.loads(get(url, {"input": TEXTS[0], "encoding_format": "base64"}))
    row = np.frombuffer(base64.b64decode(as_base64["data"][0]["embedding"]), "<f4")
    assert cosines(row[None], expected[:1]).min() >= 0.9999
    ids = ragged[0][: ragged[1][0]].tolist()
    one, rows_of_ids = (json.loads(get(url, {"input": given})) for given in (ids, [ids, ids]))
    assert len(one["data"]) == 1
    assert one["usage"]["total_tokens"] == len(ids)
    assert cosines(np.array([d["embedding"] for d in rows_of_ids["data"]]), expected[[0, 0]]).min() >= 0.9999


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"input": []}, "input"),
        ({"input": 3.5}, "input"),
        ({}, "Field required"),
        ({"input": "a", "dimensions": 999}, "dimensions=999; expected 1 to 384"),
        ({"input": [[999999]]}, "token id 999999 is not in the vocabulary; expected 0 to 30521"),
        ({"input": [[-1]]}, "vocabulary"),
        ({"input": [[2**40]]}, "vocabulary"),
    ],
)
def test_openais_bad_requests_get_400_and_a_sentence(minilm: RunningServer, body: Any, sentence: str) -> None:
    error = json.loads(get(f"{minilm.url}/v1/embeddings", body, expect=400))["error"]
    assert sentence in error["message"]
    assert error["type"] == "invalid_request_error"


def test_get_info_says_what_is_served(embeddings: Any, minilm: RunningServer) -> None:
    info = embeddings.GetInfo(pb.GetInfoRequest(), timeout=10)
    assert (info.embedding_dimension, info.max_input_tokens, info.pooling) == (384, 256, "mean")
    assert info.dtype == "float32"
    assert (info.max_inputs_per_request, info.max_tokens_per_request) == (2048, 131_072)
    over_http = json.loads(get(f"{minilm.url}/info"))
    limits = ("max_inputs_per_request", "max_tokens_per_request", "max_input_tokens")
    for name in ("model_fingerprint", "embedding_dimension", *limits):
        assert over_http[name] == getattr(info, name), name


def test_health_check_and_reflection_know_every_service(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    names = ["", "sluice.v1.Embeddings", "gpu_inference.InferenceService"]
    for name in names:
        response = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)
    assert {*names[1:], "grpc.health.v1.Health"} <= {s.name for s in answer.list_services_response.service}


def test_probes_metrics_and_the_health_document(minilm: RunningServer, inference: Any) -> None:
    for path in ("startupz", "livez", "readyz"):
        assert get(f"{minilm.url}/{path}").startswith("serving")
    document = json.loads(get(f"{minilm.url}/health"))
    Draft202012Validator(SCHEMA).validate(document)
    assert document["status"] == "healthy"
    assert document["queued_tokens"] == 0
    assert document["computed_tokens_total"] > 0
    settled = document["computed_tokens_total"] + document["expired_tokens_total"]
    assert settled == document["admitted_tokens_total"]
    check = inference.HealthCheck(inference_pb2.HealthRequest(), timeout=10)
    assert (check.status, check.accepting_requests, check.queued_tokens) == ("healthy", True, 0)
    metrics = get(f"{minilm.url}/metrics")
    assert f"sluice_computed_tokens_total {float(document['computed_tokens_total'])}" in metrics
    assert "sluice_queue_seconds_bucket" in metrics


@pytest.mark.parametrize(
    ("metadata", "counts_as"),
    [
        ((), "offered"),
        ((("sluice-refusals", "0"),), "offered"),
        ((("sluice-refusals", "3"),), "repeated"),
    ],
)
def test_what_is_asked_again_is_no_new_demand(
    channel: grpc.Channel, minilm: RunningServer, inference: Any, metadata: Any, counts_as: str
) -> None:
    before = asked_tokens(minilm)
    request = pb.EmbedRequest(texts=pb.Texts(values=["one two three"]))
    used = embeddings_pb2_grpc.EmbeddingsStub(channel).Embed(request, timeout=30, metadata=metadata).tokens_used
    ids = np.ones((1, 7), dtype="<i4").tobytes()
    padded = inference_pb2.InferRequest(num_items=1, seq_len=7, input_ids_bytes=ids, attention_mask_bytes=ids)
    inference.Infer(padded, timeout=30, metadata=metadata)
    assert asked_tokens(minilm) == {**before, counts_as: before[counts_as] + used + 7}


def test_what_a_stream_asks_is_new_demand_whatever_became_of_an_earlier_stream(
    channel: grpc.Channel, minilm: RunningServer
) -> None:
    before = asked_tokens(minilm)
    request = pb.EmbedRequest(request_id="a", texts=pb.Texts(values=["one two three"]))
    answers = embeddings_pb2_grpc.EmbeddingsStub(channel).EmbedStream(
        iter([request]), timeout=30, metadata=(("sluice-refusals", "3"),)
    )
    (answer,) = answers
    assert asked_tokens(minilm) == {**before, "offered": before["offered"] + answer.response.tokens_used}


def test_a_retry_by_grpcs_own_policy_is_no_new_demand(minilm: RunningServer) -> None:
    policy = {
        "maxAttempts": 2, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
        "retryableStatusCodes": ["INVALID_ARGUMENT"],
    }  # fmt: skip
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
    before = asked_tokens(minilm)
    too_long = pb.EmbedRequest(texts=pb.Texts(values=["word " * 600]), truncate=pb.TRUNCATE_NONE)
    options = [("grpc.service_config", json.dumps(config))]
    with (
        grpc.insecure_channel(minilm.grpc_target, options) as retrying,
        pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"),
    ):
        embeddings_pb2_grpc.EmbeddingsStub(retrying).Embed(too_long, timeout=30)
    asked = {name: tokens - before[name] for name, tokens in asked_tokens(minilm).items()}
    assert asked["offered"] == asked["repeated"] > 0


def test_a_retry_by_openais_client_is_no_new_demand(minilm: RunningServer) -> None:
    before = asked_tokens(minilm)
    body = json.dumps({"input": "one two three"}).encode()
    for retries in ("0", "1"):
        headers = {"content-type": "application/json", "x-stainless-retry-count": retries}
        with urllib.request.urlopen(
            urllib.request.Request(f"{minilm.url}/v1/embeddings", body, headers), timeout=30
        ) as response:
            used = json.load(response)["usage"]["total_tokens"]
    assert asked_tokens(minilm) == {name: tokens + used for name, tokens in before.items()}


def asked_tokens(server: RunningServer) -> dict[str, float]:
    families = text_string_to_metric_families(get(f"{server.url}/metrics"))
    values = {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}
    return {name: values[f"sluice_{name}_tokens_total"] for name in ("offered", "repeated")}


def test_trailers_tell_a_client_what_its_request_met(channel: grpc.Channel) -> None:
    stub = embeddings_pb2_grpc.EmbeddingsStub(channel)
    _, call = stub.Embed.with_call(pb.EmbedRequest(texts=pb.Texts(values=["two words"])), timeout=30)
    trailers = dict(call.trailing_metadata())
    assert trailers["sluice-tokens"] == "4"
    assert trailers["sluice-truncated"] == "0"
    assert float(trailers["sluice-compute-ms"]) > 0
    assert float(trailers["sluice-drain-ms"]) >= 0
