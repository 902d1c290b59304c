"""Header blocks of HTTP/2 (RFC 7541), as far as one gRPC client needs them. Pure.

What is sent alike with every call is put into the server's table by the first one, as gRPC's own clients do; of what
comes back nothing is kept in a table (the client announces a size of 0), so that each block can be read by itself.
"""

# Of RFC 7541's appendix A: what a request begins with.
_POST, _HTTP = b"\x83", b"\x86"
_PATH, _AUTHORITY, _CONTENT_TYPE = 4, 1, 31
_LAST_STATIC = 61
_USER_AGENT = b"sluice-bench"


class RequestHeaders:
    """The headers of all calls of one method over one connection.

    Args:
        authority: Host and port.
        method: /package.Service/Method.
    """

    def __init__(self, authority: str, method: str) -> None:
        named = [(_PATH, method.encode()), (_AUTHORITY, authority.encode()), (_CONTENT_TYPE, b"application/grpc")]
        entries = [_integer(index, 6, 0x40) + _string(value) for index, value in named]
        entries += [b"\x40" + _string(name) + _string(value) for name, value in _OTHERS]
        self._first: bytes | None = _POST + _HTTP + b"".join(entries)
        # The newest entry comes first in the table.
        self._again = _POST + _HTTP + bytes(0x80 | _LAST_STATIC + place for place in range(len(entries), 0, -1))

    def block(self, timeout_seconds: float) -> bytes:
        """The block of the next call, in the order in which calls are sent."""
        timeout = b"\x00" + _string(b"grpc-timeout") + _string(b"%dm" % max(1, round(1000 * timeout_seconds)))
        fixed, self._first = self._first or self._again, None
        return fixed + timeout


_OTHERS = ((b"te", b"trailers"), (b"user-agent", _USER_AGENT))


def value_of(block: bytes, name: bytes) -> str | None:
    """A header's value in a block that needs no table; None where the header is not there.

    Looked for, not read up to: of a thousand calls a second's trailers a few are wanted. gRPC's servers write names
    as they are, and no value of theirs holds the length that stands before one.
    """
    place = block.find(bytes([len(name)]) + name)
    return None if place < 0 else _read_string(block, place + 1 + len(name))


def _read_string(block: bytes, place: int) -> str:
    """Empty where it is Huffman-coded, which gRPC's servers do with binary values only: nobody here asks for those."""
    coded = block[place] & 0x80
    length, place = _read_integer(block, place, 7)
    return "" if coded else block[place : place + length].decode("latin-1")


def _read_integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    """RFC 7541, 5.1."""
    most = (1 << bits) - 1
    value, place, shift = block[place] & most, place + 1, 0
    if value < most:
        return value, place
    while True:
        byte = block[place]
        value, place, shift = value + ((byte & 0x7F) << shift), place + 1, shift + 7
        if not byte & 0x80:
            return value, place


def _integer(value: int, bits: int, flags: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([flags | value])
    parts, value = [flags | most], value - most
    while value >= 0x80:  # noqa: PLR2004 - seven bits at a time
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7, 0) + text
