"""What the seed system died of: each bad request gets its own INVALID_ARGUMENT, and its neighbours' answers stay right."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from gpu_inference import inference_pb2 as gi
from gpu_inference import inference_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sluice.v1 import embeddings_pb2 as pb
from sluice.v1 import embeddings_pb2_grpc

from tests.server.conftest import RunningServer

IDS = np.arange(1000, 1000 + 2 * 16, dtype="<i4").reshape(2, 16)
MASK = np.ones_like(IDS)


def infer_request(**changes: Any) -> gi.InferRequest:
    good = {
        "input_ids_bytes": IDS.tobytes(), "attention_mask_bytes": MASK.tobytes(), "num_items": 2, "seq_len": 16,
        "bucket_max_len": 16,
    }  # fmt: skip
    return gi.InferRequest(**{**good, **changes})


def with_mask(value: int) -> bytes:
    mask = MASK.copy()
    mask[1, 3] = value
    return mask.tobytes()


def row(*values: int) -> gi.TensorRow:
    return gi.TensorRow(values=values)


BAD_INFER = {
    "num_items=-1000": (infer_request(num_items=-1000), "num_items=-1000; expected 1 to 2048"),
    "num_items=-1": (infer_request(num_items=-1), "num_items=-1; expected 1 to"),
    "num_items=0": (infer_request(num_items=0), "num_items=0; expected 1 to"),
    "num_items=10000": (infer_request(num_items=10_000), "num_items=10000; expected 1 to 2048"),
    "seq_len=0": (infer_request(seq_len=0), "seq_len=0; expected at least 1"),
    "seq_len-too-long": (infer_request(seq_len=17), "input_ids_bytes holds 128 bytes; expected 136"),
    "mask-bytes-short": (infer_request(attention_mask_bytes=b"\1"), "attention_mask_bytes holds 1 bytes; expected 128"),
    "mask-of-7": (infer_request(attention_mask_bytes=with_mask(7)), "attention_mask holds 7; expected 0 or 1"),
    "mask-all-zero": (infer_request(attention_mask_bytes=bytes(128)), "input 0 has 0 tokens; expected at least 1"),
    "id-outside": (infer_request(input_ids_bytes=(IDS + 40_000).tobytes()), "is not in the vocabulary; expected 0 to"),
    "id-negative": (infer_request(input_ids_bytes=(IDS - 5000).tobytes()), "token id -4000 is not in the vocabulary"),
    "bucket-too-small": (infer_request(bucket_max_len=8), "bucket_max_len=8; expected 0, or at least the row length 16"),
    "bucket-negative": (infer_request(bucket_max_len=-1), "bucket_max_len=-1; expected 0"),
    "nothing": (gi.InferRequest(), "num_items=0; expected 1 to"),
    "rows-without-mask": (gi.InferRequest(input_ids=[row(1, 2)]), "0 rows of attention_mask for 1 of input_ids"),
    "rows-of-other-length": (
        gi.InferRequest(input_ids=[row(1, 2)], attention_mask=[row(1)]), "row 0 has 2 input_ids and 1 mask values",
    ),
    "rows-empty": (gi.InferRequest(input_ids=[row()], attention_mask=[row()]), "every row of input_ids is empty"),
}  # fmt: skip

BAD_EMBED = {
    "no-input": (pb.EmbedRequest(), "the request has no input; expected texts or token_ids"),
    "no-texts": (pb.EmbedRequest(texts=pb.Texts()), "0 inputs in one request; expected 1 to 2048"),
    "odd-bytes": (pb.EmbedRequest(token_ids=pb.TokenIds(ids=b"123", lengths=b"1234")), "ids holds 3 bytes"),
    "lengths-do-not-sum": (
        pb.EmbedRequest(token_ids=pb.TokenIds(ids=IDS.tobytes(), lengths=np.array([5], "<i4").tobytes())),
        "the lengths sum to 5, but 32 token ids came",
    ),
    "negative-length": (
        pb.EmbedRequest(token_ids=pb.TokenIds(ids=IDS.tobytes(), lengths=np.array([33, -1], "<i4").tobytes())),
        "input 1 has -1 tokens; expected at least 1",
    ),
    "too-long": (
        pb.EmbedRequest(token_ids=pb.TokenIds(ids=bytes(4 * 513), lengths=np.array([513], "<i4").tobytes())),
        "input 0 has 513 tokens; the model takes 512",
    ),
    "unknown-prompt": (
        pb.EmbedRequest(texts=pb.Texts(values=["a"]), prompt_name="query"), "prompt_name='query'; expected one of: none",
    ),
    "unknown-dtype": (pb.EmbedRequest(texts=pb.Texts(values=["a"]), output_dtype=9), "output_dtype=9; expected one of"),
    "dimensions": (pb.EmbedRequest(texts=pb.Texts(values=["a"]), dimensions=385), "dimensions=385; expected 1 to 384"),
    "too-many": (pb.EmbedRequest(texts=pb.Texts(values=["a"] * 2049)), "2049 inputs in one request; expected 1 to 2048"),
}  # fmt: skip


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


@pytest.mark.parametrize("name", BAD_INFER)
def test_a_bad_infer_request_is_refused_with_a_sentence(infer: Any, name: str) -> None:
    request, sentence = BAD_INFER[name]
    assert sentence in refusal(infer, request)


@pytest.mark.parametrize("name", BAD_EMBED)
def test_a_bad_embed_request_is_refused_with_a_sentence(embed: Any, name: str) -> None:
    request, sentence = BAD_EMBED[name]
    assert sentence in refusal(embed, request)


def test_neighbours_of_bad_requests_get_their_own_right_answers(infer: Any, minilm: RunningServer) -> None:
    """Good requests of two lengths in one bucket, between all the bad ones, at the same time."""
    short = infer_request(input_ids_bytes=IDS[:, :9].tobytes(), attention_mask_bytes=MASK[:, :9].tobytes(), seq_len=9)
    expected = {len(r.input_ids_bytes): infer(r, timeout=30).embeddings_bytes for r in (infer_request(), short)}
    work = [request for bad, _ in BAD_INFER.values() for request in (infer_request(), bad, short)] * 4

    def ask(request: gi.InferRequest) -> tuple[gi.InferRequest, bytes | str]:
        try:
            return request, infer(request, timeout=30).embeddings_bytes
        except grpc.RpcError as error:
            return request, f"{error.code()} {error.details()}"

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, work))
    bad = {id(request) for request, _ in BAD_INFER.values()}
    for request, answer in answers:
        if id(request) in bad:
            assert str(answer).startswith("StatusCode.INVALID_ARGUMENT")
        else:
            assert isinstance(answer, bytes), answer
            got, want = (np.frombuffer(b, "<f4") for b in (answer, expected[len(request.input_ids_bytes)]))
            assert np.abs(got - want).max() <= 1e-5
    assert minilm.server.engine.reserved_tokens == 0


FUZZED_INFER = st.builds(
    gi.InferRequest,
    request_id=st.text(max_size=5),
    input_ids=st.lists(st.builds(gi.TensorRow, values=st.lists(st.integers(-5, 40_000), max_size=5)), max_size=3),
    attention_mask=st.lists(st.builds(gi.TensorRow, values=st.lists(st.integers(-1, 2), max_size=5)), max_size=3),
    bucket_max_len=st.integers(-(2**31), 2**31 - 1),
    max_wait_ms=st.integers(-(2**31), 0),
    input_ids_bytes=st.binary(max_size=40),
    attention_mask_bytes=st.binary(max_size=40),
    num_items=st.integers(-3, 4) | st.integers(-(2**31), 2**31 - 1),
    seq_len=st.integers(-3, 4) | st.integers(-(2**31), 2**31 - 1),
)
FUZZED_EMBED = st.builds(
    pb.EmbedRequest,
    texts=st.none() | st.builds(pb.Texts, values=st.lists(st.text(max_size=20), max_size=3)),
    prompt_name=st.none() | st.text(max_size=5),
    truncate=st.integers(0, 5),
    dimensions=st.integers(0, 500),
    normalize=st.none() | st.booleans(),
    output_dtype=st.integers(0, 5),
    priority=st.integers(0, 5),
) | st.builds(
    lambda ids, lengths: pb.EmbedRequest(token_ids=pb.TokenIds(ids=ids, lengths=lengths)),
    st.binary(max_size=40),
    st.binary(max_size=12) | st.lists(st.integers(-2, 6), max_size=4).map(lambda n: np.array(n, "<i4").tobytes()),
)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=FUZZED_INFER | FUZZED_EMBED)
def test_whatever_comes_the_answer_is_right_or_invalid_argument(
    infer: Any, embed: Any, minilm: RunningServer, request: Any
) -> None:
    call = infer if isinstance(request, gi.InferRequest) else embed
    answered = call.future(request, timeout=30)
    if answered.code() is not grpc.StatusCode.OK:
        assert answered.code() is grpc.StatusCode.INVALID_ARGUMENT, answered
        assert answered.details()
    assert minilm.server.engine.phase.name == "serving"
    assert minilm.server.engine.reserved_tokens == 0
