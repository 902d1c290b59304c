"""Bytes on the sockets themselves: cut off, contradicting, or no HTTP at all."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.server.malformed.verdicts import MAX_MESSAGE_BYTES

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Wire:
    """Bytes for a fresh connection.

    Attributes:
        port: http or grpc.
        data: Written at once.
        codes: HTTP statuses that may answer; None stands for a connection closed without a word.
        leave: Close at once, and read nothing.
    """

    port: str
    data: bytes
    codes: frozenset[int | None]
    leave: bool = False


def length(text: bytes, body: bytes = b"{}") -> bytes:
    return HEAD + b"Content-Length: " + text + b"\r\n\r\n" + body


REFUSED = frozenset({400})
CUT_OFF: frozenset[int | None] = frozenset({400, None})
BROKEN = st.one_of(
    st.sampled_from([
        length(b"-5"), length(b"abc"), length(b"1e3"), length(b"5, 6"), length(b""),
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", CHUNKED + b"2\r\n{}x0\r\n\r\n",
        HEAD + b"X y: a\r\n\r\n", HEAD + b": a\r\n\r\n", HEAD + b"X: a\x00b\r\n\r\n",
        b"P@ST /v1/embeddings HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /v1/embeddings HTTP/9.1\r\nHost: a\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"POST\r\n\r\n", b"\r\n\r\n\r\nx\r\n\r\n",
        b"POST /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 99,
    ]),
    st.binary(min_size=1, max_size=12).map(lambda junk: b"\x00" + junk + b"\r\n\r\n"),
).map(lambda data: Wire("http", data, REFUSED))  # fmt: skip
UNFINISHED = st.sampled_from([
    length(b"100", b'{"input": '), CHUNKED + b'5\r\n{"inp', CHUNKED + b'5\r\n{"inp\r\n', CHUNKED + b"ffffff\r\n{",
    HEAD, HEAD + b"Content-Le", b"POST /v1/embe", b"P",
])  # fmt: skip
OVERSIZE = st.sampled_from([MAX_MESSAGE_BYTES + 1, 10**11, 2**63 - 1]).map(
    lambda size: Wire("http", length(str(size).encode()), frozenset({413}))
)
GRPC = st.binary(min_size=1, max_size=40) | st.sampled_from([
    HEAD, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 60, b"\x16\x03\x01\x02\x00\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x7f\xff\xff\x01\x05\x00\x00\x00\x01",
])  # fmt: skip
CONNECTIONS = st.one_of(
    BROKEN,
    BROKEN,
    st.builds(lambda data, leave: Wire("http", data, CUT_OFF, leave=leave), UNFINISHED, st.booleans()),
    OVERSIZE,
    GRPC.map(lambda data: Wire("grpc", data, frozenset({None, 400}), leave=False)),
)
