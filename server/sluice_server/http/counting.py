"""How much a large body holds at least, counted without reading it, during which the event loop stands still. Pure."""

import re

from sluice_server.errors import InvalidRequestError
from sluice_server.http.body import SMALL_BYTES
from sluice_server.validation import RequestLimits

# Beside its inputs a request holds a few fields.
_OTHER_VALUES = 1000
_NAME = b'"input"'
_OF_NUMBERS = re.compile(rb"\s*:\s*\[[\s\[]*-?[0-9]")


def check_counts(body: bytes, limits: RequestLimits) -> None:
    """Raises InvalidRequestError where the body holds more inputs or token ids than a request may; may miss some."""
    if len(body) <= SMALL_BYTES:
        return  # what is wrong with it is told more exactly by who reads it
    if _holds_numbers(body):
        what, count, most = "token ids", body.count(b",") + 1, limits.max_tokens
    else:
        # A quote with a backslash before it stands within a text, or ends one whose last letter is a backslash.
        what, count, most = "texts", (body.count(b'"') - body.count(b'\\"')) // 2, limits.max_inputs
    if count > most + _OTHER_VALUES:
        raise InvalidRequestError(f"about {count} {what} in one request; expected at most {most}")


def _holds_numbers(body: bytes) -> bool:
    """Whether `input` is a list of numbers or of lists of them; within a text its quotes would not stand alone."""
    place = body.find(_NAME)
    return place >= 0 and _OF_NUMBERS.match(body, place + len(_NAME)) is not None
