"""By which id a request is known in logs, traces and the caller's own records. Pure."""

import random
import re
from collections.abc import Mapping
from typing import TypeGuard

HEADER = "x-request-id"
MAX_CHARACTERS = 128

# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append fields.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace_id>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


def choose(metadata: Mapping[str, str | bytes], own_id: str = "") -> str:
    """The caller's id: its header, else the request's own field, else its trace's; else a new one.

    What is no id (empty, too long, not printable ASCII) counts as not sent: it would end in log lines and headers.

    Args:
        metadata: Of the call, names in lower case or case-insensitive.
        own_id: What the request itself says, where its message has such a field.
    """
    for said in (metadata.get(HEADER), own_id):
        if is_valid(said):
            return said
    traceparent = metadata.get("traceparent")
    if isinstance(traceparent, str) and (found := _TRACEPARENT.fullmatch(traceparent)):
        return found["trace_id"]
    return new()


def is_valid(said: str | bytes | None) -> TypeGuard[str]:
    """Printable ASCII of at most 128 characters."""
    return isinstance(said, str) and 0 < len(said) <= MAX_CHARACTERS and said.isascii() and said.isprintable()


def new() -> str:
    """32 hexadecimal digits, like a trace's; unique, not secret."""
    return f"{random.getrandbits(128):032x}"


def within(outer: str, inner: str) -> str:
    """Of one message of a stream: both ids, so that a search for either finds it."""
    both = f"{outer}/{inner}"
    return both if is_valid(both) else outer
