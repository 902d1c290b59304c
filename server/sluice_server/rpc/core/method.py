"""What callers may ask for, as the server takes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Method:
    """What callers may ask for.

    Attributes:
        behavior: Given the request, or an iterator of them, and the call. What it does at once needs no task; it
            returns what gives the response (or writes several) when it is awaited, an asynchronous generator of
            responses, or None where it has ended the call already.
        takes_stream: The caller may send many requests.
        decode: Of a request's bytes.
        encode: Of a response.
    """

    behavior: Callable[[Any, Any], Any]
    takes_stream: bool
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


class AbortError(Exception):
    """Ends a method whose call has got its status."""
