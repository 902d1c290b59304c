"""sluice.v1 Embed and EmbedStream: requests that are wrong in every field, and what each deserves."""

from collections.abc import Callable
from functools import cache, lru_cache, partial

import numpy as np
from hypothesis import strategies as st
from sluice.v1 import embeddings_pb2 as pb
from tokenizers import Tokenizer

from tests.server.conftest import minilm_folder
from tests.server.malformed.verdicts import (
    DIMENSION,
    MAX_INPUTS,
    MAX_TOKENS,
    POSITIONS,
    VOCABULARY,
    Outcome,
    Verdict,
    check,
    fine,
    refused,
)

TEXT_TOKENS = 256
MEGABYTE = 1 << 20


@cache
def tokenizer() -> Tokenizer:
    made = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    return made


def judge(data: bytes) -> Verdict:
    """Of one message of Embed, or of one within a stream, whose id is judged apart."""
    try:
        request = pb.EmbedRequest.FromString(data)
    except Exception:  # noqa: BLE001 - whatever the library says, it is no request
        return refused("cannot be read")
    # The model has no prompts; an empty name asks for none.
    faults = {"prompt_name"} if request.prompt_name else set()
    faults |= {"dimensions"} if request.dimensions > DIMENSION else set()
    for name, most in (("truncate", 3), ("output_dtype", 3), ("priority", 2)):
        faults |= {name} if not 0 <= getattr(request, name) <= most else set()
    form = request.WhichOneof("input")
    if form is None:
        return refused("input", *faults)
    more, count = _texts(request) if form == "texts" else _ids(request.token_ids)
    return refused(*faults, *more) if faults or more else fine(count, request.dimensions or DIMENSION)


def _texts(request: pb.EmbedRequest) -> tuple[set[str], int]:
    values = request.texts.values
    if not 1 <= len(values) <= MAX_INPUTS:
        return {"inputs"}, 0
    lengths = [_token_count(value) for value in values]
    if request.truncate == pb.TRUNCATE_NONE and max(lengths) > TEXT_TOKENS:
        return {"tokens"}, 0
    return ({"tokens"} if sum(min(one, TEXT_TOKENS) for one in lengths) > MAX_TOKENS else set()), len(values)


@lru_cache(maxsize=512)
def _token_count(text: str) -> int:
    return len(tokenizer().encode(text).ids)


def _ids(token_ids: pb.TokenIds) -> tuple[set[str], int]:
    faults = {name for name in ("ids", "lengths") if len(getattr(token_ids, name)) % 4 or not getattr(token_ids, name)}
    if faults:
        return faults, 0
    ids, lengths = (np.frombuffer(part, "<i4").tolist() for part in (token_ids.ids, token_ids.lengths))
    if len(lengths) > MAX_INPUTS:
        faults.add("inputs")
    if min(lengths) < 1 or max(lengths) > POSITIONS or sum(lengths) > MAX_TOKENS:
        faults.add("tokens")
    if sum(lengths) != len(ids):
        faults.add("lengths")
    if any(not 0 <= one < VOCABULARY for one in ids):
        faults.add("vocabulary")
    return faults, len(lengths)


ENUM = st.sampled_from([4, 5, -1, 2**31 - 1, -(2**31)])
WORDS = st.sampled_from(["a", "shoes", "b\0c", "", " ", "\U0001f600", "naïve", "\ufffd\uffff"])
PROMPTS = st.sampled_from(["", "query", "a\n\0", "é" * 50])
INT32S = st.lists(
    st.integers(-2, 6) | st.sampled_from([-(2**31), 2**31 - 1, VOCABULARY, 513]), max_size=6
).map(lambda values: np.array(values, "<i4").tobytes())  # fmt: skip


@st.composite
def wrong_options(draw: st.DrawFn) -> pb.EmbedRequest:
    """A good input under wrong options."""
    request = pb.EmbedRequest(texts=pb.Texts(values=draw(st.lists(WORDS, min_size=1, max_size=2))))
    match draw(st.sampled_from(["prompt", "truncate", "dimensions", "dtype", "priority", "none"])):
        case "prompt":
            request.prompt_name = draw(PROMPTS.filter(bool))
        case "truncate":
            request.truncate = draw(ENUM)
        case "dimensions":
            request.dimensions = draw(st.integers(DIMENSION + 1, 2**32 - 1))
        case "dtype":
            request.output_dtype = draw(ENUM)
        case "priority":
            request.priority = draw(ENUM)
        case _:
            request.ClearField("texts")
    return request


def ragged(ids: bytes, lengths: bytes) -> pb.EmbedRequest:
    return pb.EmbedRequest(token_ids=pb.TokenIds(ids=ids, lengths=lengths))


@st.composite
def wrong_ids(draw: st.DrawFn) -> pb.EmbedRequest:
    """Ragged ids that were right before one thing was changed."""
    lengths = np.array(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)), "<i4")
    ids = np.arange(lengths.sum(), dtype="<i4") + 1000
    place = draw(st.integers(0, len(lengths) - 1))
    match draw(st.sampled_from(["length", "id", "missing", "odd", "no lengths", "no ids"])):
        case "length":
            lengths[place] = draw(st.sampled_from([0, -1, 7, 513, -(2**31), 2**31 - 1]))
        case "id":
            ids[place] = draw(st.sampled_from([-1, VOCABULARY, 2**31 - 1, -(2**31)]))
        case "missing":
            ids = ids[:-1]
        case "odd":
            return ragged(ids.tobytes() + b"x", lengths.tobytes())
        case "no lengths":
            return ragged(ids.tobytes(), b"")
        case _:
            return ragged(b"", lengths.tobytes())
    return ragged(ids.tobytes(), lengths.tobytes())


ANYTHING = st.builds(
    pb.EmbedRequest,
    request_id=st.text(max_size=5) | st.just("é\n" * 50),
    texts=st.none() | st.builds(pb.Texts, values=st.lists(WORDS, max_size=2)),
    prompt_name=st.none() | PROMPTS,
    truncate=st.integers(0, 3) | ENUM,
    dimensions=st.integers(0, 500),
    normalize=st.none() | st.just(True),
    output_dtype=st.integers(0, 1) | ENUM,
    priority=st.integers(0, 2) | ENUM,
)


def counted(inputs: int, tokens: int) -> pb.EmbedRequest:
    return ragged(np.full(inputs * tokens, 1000, "<i4").tobytes(), np.full(inputs, tokens, "<i4").tobytes())


def serialized(request: pb.EmbedRequest) -> bytes:
    return request.SerializeToString()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Junk, a message cut short, or text that is no UTF-8: half a surrogate pair, a byte of another code."""
    text = draw(st.sampled_from([b"\xed\xa0\x80", b"\xff", b"caf\xe9", b"\xc0\x80", b"\xf5\x80\x80\x80"]))
    inner = b"\x0a" + bytes([len(text)]) + text
    good = pb.EmbedRequest(texts=pb.Texts(values=["a good text"])).SerializeToString()
    return draw(
        st.sampled_from(
            [b"\x12" + bytes([len(inner)]) + inner, good[: draw(st.integers(1, len(good) - 1))], good + b"\x12"]
        )
        | st.binary(min_size=1, max_size=20)
    )


REQUESTS = st.one_of(
    wrong_options().map(serialized),
    wrong_ids().map(serialized),
    wrong_ids().map(serialized),
    st.builds(ragged, INT32S | st.binary(max_size=9), INT32S).map(serialized),
    ANYTHING.map(serialized),
    damaged(),
)
# Costly to send: one of them is in each volley.
BIG: dict[str, Callable[[], bytes]] = {
    name: partial(pb.EmbedRequest.SerializeToString, request)
    for name, request in {
        "tokens": counted(MAX_INPUTS, 65),
        "inputs of ids": counted(MAX_INPUTS + 1, 1),
        "long ids": counted(1, 513),
        "long and many": counted(MAX_INPUTS + 1, 513),
        "inputs": pb.EmbedRequest(texts=pb.Texts(values=["a"] * (MAX_INPUTS + 1))),
        "tokens of texts": pb.EmbedRequest(texts=pb.Texts(values=["many words " * 100] * MAX_INPUTS)),
        "long text": pb.EmbedRequest(texts=pb.Texts(values=["many words " * 300]), truncate=pb.TRUNCATE_NONE),
        "long and fine": pb.EmbedRequest(texts=pb.Texts(values=["many words " * 300])),
        "prompt": pb.EmbedRequest(texts=pb.Texts(values=["a"]), prompt_name="x" * 30_000),
        "wide prompt": pb.EmbedRequest(texts=pb.Texts(values=["a"]), prompt_name="\U0001f600" * 9_000),
        "request id": pb.EmbedRequest(request_id="é\n" * 30_000, texts=pb.Texts(values=["a"])),
        "megabytes of words": pb.EmbedRequest(texts=pb.Texts(values=["a " * (3 * MEGABYTE // 2)])),
        "megabyte of spaces": pb.EmbedRequest(texts=pb.Texts(values=["a" + " " * MEGABYTE + "b"])),
        "many long texts": pb.EmbedRequest(texts=pb.Texts(values=["many " * 10_000] * 16)),
        "megabyte": pb.EmbedRequest(texts=pb.Texts(values=["y" * MEGABYTE])),
        "megabyte refused": pb.EmbedRequest(texts=pb.Texts(values=["y" * MEGABYTE]), prompt_name="query"),
    }.items()
}


@st.composite
def stream(draw: st.DrawFn) -> list[bytes]:
    """One stream's messages: ids may be empty or come twice, and bytes that are no message may end it."""
    good = st.lists(WORDS, min_size=1, max_size=2).map(lambda words: pb.EmbedRequest(texts=pb.Texts(values=words)))
    messages = draw(st.lists(wrong_options() | wrong_ids() | wrong_ids() | good, min_size=24, max_size=24))
    ids = st.integers(0, 200).map(str) | st.sampled_from(["", "twice", "twice"])
    for message in messages:
        message.request_id = draw(ids)
    junk = [b"\xff\xff\xff"] if draw(st.booleans()) else []
    return [message.SerializeToString() for message in messages] + junk


def is_unreadable(message: bytes) -> bool:
    return "cannot be read" in judge(message).words


def request_id(message: bytes) -> str:
    return pb.EmbedRequest.FromString(message).request_id


def check_twins(request_id: str, verdicts: list[Verdict], outcome: Outcome) -> None:
    """Without an id of its own, a request is refused; of twins under way together, the second is."""
    if outcome.code == "INVALID_ARGUMENT" and "request_id" in outcome.message:
        check(refused("request_id"), outcome, of=request_id)
        return
    assert request_id
    codes = {code for verdict in verdicts for code in verdict.codes}
    words = {word for verdict in verdicts for word in verdict.words}
    shapes = [verdict.shape for verdict in verdicts]
    assert outcome.code in codes
    assert outcome.shape in shapes if outcome.code == "OK" else any(word in outcome.message for word in words)
