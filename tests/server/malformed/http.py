"""POST /v1/embeddings: requests that are wrong from the first line to the last byte, and what each deserves."""

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hypothesis import strategies as st

from tests.server.malformed.embed import _token_count
from tests.server.malformed.verdicts import (
    DIMENSION,
    MAX_INPUTS,
    MAX_MESSAGE_BYTES,
    MAX_TOKENS,
    POSITIONS,
    VOCABULARY,
    Verdict,
    fine,
    refused,
)

PATH = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request of a well-behaved connection."""

    body: bytes
    verdict: Verdict
    method: str = "POST"
    path: str = PATH
    headers: dict[str, str] = field(default_factory=dict)


def judge(body: Any) -> Verdict:
    """Of a body that is JSON."""
    if not isinstance(body, dict):
        return bad("the body")
    faults = set()
    if "input" not in body:
        faults.add("input")
    if not isinstance(body.get("model"), str | None):
        faults.add("model")
    if body.get("encoding_format", "float") not in ("float", "base64"):
        faults.add("encoding_format")
    dimensions = body.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= DIMENSION):
        faults.add("dimensions")
    more, count = _input(body["input"]) if "input" in body else (set(), 0)
    return bad(*faults, *more) if faults or more else ok(count, dimensions or DIMENSION)


def _input(value: Any) -> tuple[set[str], int]:
    rows = value if isinstance(value, list) else [value]
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        rows = [value]
    if rows and all(isinstance(one, str) for one in rows):
        return _texts(rows)
    if not rows or not all(isinstance(row, list) and row and all(type(one) is int for one in row) for row in rows):
        return {"input"}, 0
    faults = {"inputs"} if len(rows) > MAX_INPUTS else set()
    faults |= {"vocabulary"} if any(not 0 <= one < VOCABULARY for row in rows for one in row) else set()
    faults |= {"tokens"} if max(map(len, rows)) > POSITIONS or sum(map(len, rows)) > MAX_TOKENS else set()
    return faults, len(rows)


def _texts(texts: list[str]) -> tuple[set[str], int]:
    if any("\ud800" <= one <= "\udfff" for text in texts for one in text):
        return {"input["}, 0
    if len(texts) > MAX_INPUTS:
        return {"inputs"}, 0
    return ({"tokens"} if sum(min(256, _token_count(text)) for text in texts) > MAX_TOKENS else set()), len(texts)


def ok(rows: int, dimensions: int = DIMENSION) -> Verdict:
    return fine(rows, dimensions)


def bad(*words: str, code: int = 400) -> Verdict:
    return refused(*words, code=str(code))


def judged(body: Any) -> HttpRequest:
    return HttpRequest(json.dumps(body).encode(), judge(body))


TEXT = st.sampled_from(["a", "shoes", "", "b\0c", "\ud800", "x\udfff", "\U0001f600"])
NUMBER = st.sampled_from([0, 1, -1, VOCABULARY, 2**31, 2**63, -(2**70), 10**40, 3.5, 1e300])
WRONG = st.none() | st.booleans() | NUMBER | TEXT
SHALLOW = st.lists(WRONG, max_size=3) | st.dictionaries(st.sampled_from(["input", "a"]), WRONG, max_size=2)
NESTED = st.recursive(WRONG, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
GOOD = st.sampled_from(["a", ["a", "b"], [101, 2054, 102], [[101, 102]]])
ROWS = st.lists(st.lists(st.integers(0, 5) | NUMBER, max_size=3), min_size=1, max_size=3)

BODIES = st.one_of(
    st.builds(lambda value: {"input": value}, SHALLOW | NESTED | ROWS),
    st.builds(lambda value: {"input": value}, SHALLOW | NESTED | ROWS),
    st.builds(lambda good, value: {"input": good, "dimensions": value}, GOOD, WRONG | SHALLOW),
    st.builds(lambda good, value: {"input": good, "encoding_format": value}, GOOD, WRONG | st.just("int8")),
    st.builds(lambda good, value: {"input": good, "model": value, "user": value}, GOOD, WRONG | SHALLOW),
    st.builds(lambda value: {"inputs": value}, GOOD),
    SHALLOW,
    WRONG,
).map(judged)

NOT_JSON = st.sampled_from([
    b"", b"{", b"}", b"null,", b"{'input': 'a'}", b'{"input": "a"', b'{"input": "a",}', b'{"input": "\xff"}',
    b'{"input": "\xed\xa0\x80"}', b'{"input": [1 2]}', b'{"input": "\n"}', b'{"input": "\\x"}', b"\x1f\x8b\x00junk",
    b'{"input": [NaN]}', b'{"input": "a", "dimensions": Infinity}', b'{"input": -Infinity}', b"\x00" * 9,
]) | st.binary(min_size=1, max_size=12).filter(lambda data: not data.strip().isdigit())  # fmt: skip


def nested(depth: int, close: bool) -> HttpRequest:
    return HttpRequest(
        b'{"input": ' + b"[" * depth + (b"]" * depth + b"}" if close else b""), bad("nests", "JSON", "input")
    )


def sized(size: int) -> HttpRequest:
    code = 413 if size > MAX_MESSAGE_BYTES else 400
    return HttpRequest(b" " * size, bad("JSON", str(MAX_MESSAGE_BYTES), code=code))


def coded(coding: str, body: bytes, code: int) -> HttpRequest:
    words = (coding, "Content-Encoding", "Maximum", "JSON")
    return HttpRequest(body, bad(*words, code=code), headers={"Content-Encoding": coding})


A_GOOD_BODY = b'{"input": "a good text"}'
MALFORMED = st.one_of(
    NOT_JSON.map(lambda body: HttpRequest(body, bad("JSON", "the body", "surrogate"))),
    st.builds(nested, st.sampled_from([3, 30, 300]), st.booleans()),
    st.builds(coded, st.sampled_from(["gzip", "deflate"]), st.just(A_GOOD_BODY), st.just(400)),
    st.builds(coded, st.sampled_from(["x", "utf-8", "é"]), st.just(A_GOOD_BODY), st.just(415)),
    st.just(coded("gzip", gzip.compress(A_GOOD_BODY)[:20], 400)),
    st.sampled_from(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"]).map(
        lambda method: HttpRequest(b"", bad("POST", code=405), method=method)
    ),
    st.sampled_from(["/v1/embedding", "/v1", "/", "/v1/embeddings/", "/..", "/v1/embeddings/%00"]).map(
        lambda path: HttpRequest(A_GOOD_BODY, bad("/v1/embeddings", code=404), path=path)
    ),
    st.sampled_from(["", "nan", "-1", "0", "1e999", "soon", "é"]).map(
        lambda text: HttpRequest(A_GOOD_BODY, bad("x-request-timeout-ms"), headers={"x-request-timeout-ms": text})
    ),
)
# Whatever the content type says, the body is read as JSON: curl's default is no other.
ODD_BUT_FINE = st.sampled_from(["text/xml", "multipart/form-data", "application/json; charset=latin-1", "x"]).map(
    lambda kind: HttpRequest(A_GOOD_BODY, ok(1), headers={"Content-Type": kind})
)
REQUESTS = st.one_of(BODIES, BODIES, BODIES, MALFORMED, MALFORMED, ODD_BUT_FINE)
# Costly to send: one of them is in each volley.
BIG: dict[str, Callable[[], HttpRequest]] = {
    **{
        f"{size} bytes": partial(sized, size)
        for size in (MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1, 2 * MAX_MESSAGE_BYTES)
    },
    **{f"{depth} deep": partial(nested, depth, True) for depth in (900, 5000, 100_000)},
    "zip bomb": partial(coded, "gzip", gzip.compress(b" " * (20 * MAX_MESSAGE_BYTES)), 413),
    "deflate bomb": partial(coded, "deflate", zlib.compress(b" " * (20 * MAX_MESSAGE_BYTES)), 413),
    "digits": lambda: HttpRequest(b'{"input": [' + b"9" * 5000 + b"]}", bad("digits")),
    **{
        name: partial(judged, body)
        for name, body in {
            "inputs": {"input": ["a"] * (MAX_INPUTS + 1)},
            "inputs of ids": {"input": [[7]] * (MAX_INPUTS + 1)},
            "long ids": {"input": [7] * (POSITIONS + 1)},
            "tokens": {"input": [[7] * 65] * MAX_INPUTS},
            "megabyte": {"input": "x" * (1 << 20)},
            "model": {"input": "a", "model": "m" * (1 << 20)},
            "format": {"input": "a", "encoding_format": "e" * (1 << 20)},
        }.items()
    },
}
