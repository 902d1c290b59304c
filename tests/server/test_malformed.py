"""The sentence that each fault of a request gets; tests/server/malformed/ sends ten thousand of them."""

import json
import socket
import urllib.error
import urllib.request
from typing import Any

import grpc
import numpy as np
import pytest
from gpu_inference import inference_pb2 as gi
from gpu_inference import inference_pb2_grpc
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc
from sluice_server.http import reading

from tests.server.conftest import RunningServer

IDS = np.arange(1000, 1000 + 2 * 16, dtype="<i4").reshape(2, 16)
MASK = np.ones_like(IDS)


def infer_request(**changes: Any) -> gi.InferRequest:
    good = {
        "input_ids_bytes": IDS.tobytes(), "attention_mask_bytes": MASK.tobytes(), "num_items": 2, "seq_len": 16,
        "bucket_max_len": 16,
    }  # fmt: skip
    return gi.InferRequest(**{**good, **changes})


def row(*values: int) -> gi.TensorRow:
    return gi.TensorRow(values=values)


def rows(ids: list[gi.TensorRow], mask: list[gi.TensorRow], **more: int) -> gi.InferRequest:
    return gi.InferRequest(input_ids=ids, attention_mask=mask, **more)


def texts(*values: str, **more: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(texts=pb.Texts(values=values), **more)


def ragged(ids: bytes, *lengths: int, **more: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(token_ids=pb.TokenIds(ids=ids, lengths=np.array(lengths, "<i4").tobytes()), **more)


BAD_INFER = {
    "num_items=0": (infer_request(num_items=0), "num_items=0; expected 1 to 2048"),
    "seq_len=0": (infer_request(seq_len=0), "seq_len=0; expected at least 1"),
    "seq_len-too-long": (infer_request(seq_len=17), "input_ids_bytes holds 128 bytes; expected 136"),
    "id-negative": (infer_request(input_ids_bytes=(IDS - 5000).tobytes()), "token id -4000 is not in the vocabulary"),
    "bucket-negative": (infer_request(bucket_max_len=-1), "bucket_max_len=-1; expected 0"),
    "nothing": (gi.InferRequest(), "num_items=0; expected 1 to"),
    "rows-without-mask": (rows([row(1, 2)], []), "0 rows of attention_mask; expected 1"),
    "rows-of-other-length": (rows([row(1, 2)], [row(1)]), "row 0 has 2 input_ids and 1 mask values"),
    "rows-empty": (rows([row(1), row()], [row(1), row()]), "row 1 of input_ids is empty; expected at least 1 token"),
    "rows-and-num_items": (
        rows([row(1)], [row(1)], num_items=-1000), "num_items=-1000, but the rows say 1; expected 0 or 1",
    ),
    "rows-and-seq_len": (rows([row(1)], [row(1)], seq_len=9), "seq_len=9, but the rows say 1; expected 0 or 1"),
}  # fmt: skip

BAD_EMBED = {
    "no-input": (pb.EmbedRequest(), "the request has no input; expected texts or token_ids"),
    "no-texts": (texts(), "0 inputs in one request; expected 1 to 2048"),
    "odd-bytes": (ragged(b"123", 4), "ids holds 3 bytes"),
    "lengths-do-not-sum": (ragged(IDS.tobytes(), 5), "the lengths sum to 5, but 32 token ids came"),
    "negative-length": (ragged(IDS.tobytes(), 33, -1), "input 1 has -1 tokens; expected at least 1"),
    "too-long": (ragged(bytes(4 * 513), 513), "input 0 has 513 tokens; the model takes 512"),
    "unknown-prompt": (texts("a", prompt_name="query"), "prompt_name='query'; expected one of: none"),
    "prompt-of-ids": (ragged(bytes(4), 1, prompt_name="query"), "prompt_name='query' goes before texts"),
    "prompt-too-long-to-tell": (texts("a", prompt_name="é" * 20_000), " … "),
    "unknown-dtype": (texts("a", output_dtype=9), "output_dtype=9; expected one of"),
    "dimensions": (texts("a", dimensions=385), "dimensions=385; expected 1 to 384"),
    "too-many": (texts(*["a"] * 2049), "2049 inputs in one request; expected 1 to 2048"),
}

BAD_HTTP = {
    "not-json": (b"{", "the body is not JSON: Expecting property name"),
    "not-utf8": (b'{"input": "\xff"}', "the body is not JSON: byte 11 is not UTF-8"),
    "nan": (b'{"input": [NaN]}', "the body is not JSON: it holds NaN"),
    "a-list": (b"[]", "the body is a list; expected an object with the field input"),
    "deep": (b"[" * 100_000, "the body nests too deep"),
    "digits": (b'{"input": [' + b"9" * 5000 + b"]}", "a number of thousands of digits"),
    "surrogate": (b'{"input": ["a", "b\\ud800"]}', "input[1] holds half a surrogate pair at character 1"),
    "mixed": (b'{"input": ["a", 7]}', "input[1] is a number; expected a text, as input[0] is"),
    "too-nested": (b'{"input": [[[7]]]}', "input[0][0] is a list; expected a token id"),
    "empty-row": (b'{"input": [[7], []]}', "input[1] is an empty list; expected at least one token id"),
    "true": (b'{"input": [true]}', "input[0] is true or false; expected a text, a list of texts"),
    "id": (b'{"input": [7, 1e2]}', "input[1] is a number that is not whole; expected a token id"),
    "beyond-64-bits": (
        b'{"input": [7, 18446744073709551616]}',
        "input[1] is a number beyond any vocabulary; expected a",
    ),
    "large-not-json": (
        b'{"input": "' + b"a" * (1 << 20) + b'"',
        "not JSON: unexpected end of data: line 1 column 1048589",
    ),
    "model": (b'{"input": "a", "model": ["m"]}', "model is a list: Input should be a valid string"),
    "deep-dimensions": (
        b'{"input": "a", "dimensions": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        "dimensions is a list: Input should be",
    ),
    "dimensions": (b'{"input": "a", "dimensions": true}', "dimensions=true: Input should be a valid integer"),
    "format": (b'{"input": "a", "encoding_format": "int8"}', "encoding_format=\"int8\": Input should be 'float' or"),
}


@pytest.fixture
def infer(channel: grpc.Channel) -> Any:
    return inference_pb2_grpc.InferenceServiceStub(channel).Infer


@pytest.fixture
def embed(channel: grpc.Channel) -> Any:
    return embeddings_pb2_grpc.EmbeddingsStub(channel).Embed


def refusal(call: Any, request: Any) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, refused.value
    return refused.value.details()


def post(url: str, body: bytes) -> Any:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, body), timeout=30)
    with refused.value:
        return json.load(refused.value)


@pytest.mark.parametrize("name", BAD_INFER)
def test_a_bad_infer_request_is_refused_with_a_sentence(infer: Any, name: str) -> None:
    request, sentence = BAD_INFER[name]
    assert sentence in refusal(infer, request)


@pytest.mark.parametrize("name", BAD_EMBED)
def test_a_bad_embed_request_is_refused_with_a_sentence(embed: Any, name: str) -> None:
    request, sentence = BAD_EMBED[name]
    assert sentence in refusal(embed, request)


@pytest.mark.parametrize("name", BAD_HTTP)
def test_a_bad_body_is_refused_with_a_sentence(minilm: RunningServer, name: str) -> None:
    body, sentence = BAD_HTTP[name]
    error = post(f"{minilm.url}/v1/embeddings", body)["error"]
    assert sentence in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "bad_request")


@pytest.mark.parametrize(
    "method",
    ["/gpu_inference.InferenceService/Infer", "/sluice.v1.Embeddings/Embed", "/grpc.health.v1.Health/Check"],
)
def test_bytes_that_are_no_message_are_refused_with_a_sentence(channel: grpc.Channel, method: str) -> None:
    assert "the message cannot be read" in refusal(channel.unary_unary(method), b"\xff\xff")


def test_text_that_is_no_utf8_is_refused_with_a_sentence(channel: grpc.Channel) -> None:
    half_a_surrogate_pair = b"\x12\x05\x0a\x03\xed\xa0\x80"
    assert "UTF-8" in refusal(channel.unary_unary("/sluice.v1.Embeddings/Embed"), half_a_surrogate_pair)


def test_a_token_counts_where_the_mask_is_1_wherever_it_stands(infer: Any) -> None:
    mask = MASK.copy()
    mask[:, :3] = mask[:, 7] = 0
    kept = IDS[mask.astype(bool)].reshape(2, -1)
    holes = infer(infer_request(attention_mask_bytes=mask.tobytes()), timeout=30)
    whole = infer(
        infer_request(input_ids_bytes=kept.tobytes(), attention_mask_bytes=np.ones_like(kept).tobytes(), seq_len=12),
        timeout=30,
    )
    left, right = (np.frombuffer(answer.embeddings_bytes, "<f4") for answer in (holes, whole))
    assert np.abs(left - right).max() <= 1e-5


def test_rows_of_very_different_lengths_are_not_padded_on_the_way(infer: Any) -> None:
    """As a rectangle, these 2 MB would be 8 GB."""
    long, short = gi.TensorRow(values=[7] * 1_000_000), row(7)
    marks = gi.TensorRow(values=[1] * 1_000_000)
    request = rows([long, *[short] * 2000], [marks, *[row(1)] * 2000])
    assert "input 0 has 1000000 tokens; the model takes 512" in refusal(infer, request)


def test_an_id_that_is_under_way_on_its_stream_is_refused_and_its_twin_is_answered(channel: grpc.Channel) -> None:
    long, short = texts(*["many words " * 100] * 50, request_id="a"), texts("a", request_id="a")
    answers = list(embeddings_pb2_grpc.EmbeddingsStub(channel).EmbedStream(iter([long, short]), timeout=60))
    assert {one.request_id for one in answers} == {"a"}
    (refused,) = [one.error for one in answers if one.HasField("error")]
    assert "request_id='a' is under way on this stream" in refused.message
    (answered,) = [one.response for one in answers if one.HasField("response")]
    assert answered.embeddings.shape[0] == 50


def test_junk_on_a_stream_ends_it_after_the_answers_to_what_came_before(channel: grpc.Channel) -> None:
    call = channel.stream_stream("/sluice.v1.Embeddings/EmbedStream")
    answers = call(iter([texts("a", request_id="a").SerializeToString(), b"\xff\xff"]), timeout=30)
    assert pb.EmbedStreamResponse.FromString(next(answers)).HasField("response")
    with pytest.raises(grpc.RpcError) as refused:
        next(answers)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_body_that_does_not_come_ends_with_408(minilm: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BODY_WITHIN_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", minilm.server.http_port), timeout=30) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_method_that_is_not_served_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/sluice.v1.Embeddings/Dream")(b"", timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
