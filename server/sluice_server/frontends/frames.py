"""What front ends and the main process say to each other, as bytes. Pure; little-endian, lengths before contents.

A frame is a head and a body. Ids and embeddings are raw arrays; what comes once in a while is JSON.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sluice_server import errors
from sluice_server.engine_port import Computation
from sluice_server.observability.observations import TIMES, Observations, Refused
from sluice_server.postprocess import unit
from sluice_server.requests import Computed, Priority, Terms, TokenRows

# Size of the body, kind, call. Sixteen bytes, so that arrays in a body of their own are aligned.
_HEAD = struct.Struct("<IBxxxQ")
# Deadline in seconds, milliseconds waited (NaN: unknown), tokens or rows, priority, repeated.
_TERMS = struct.Struct("<ddIBBxx")
# Milliseconds in the queue, on the device, until the queue is empty (NaN: unknown); rows, dimension.
_ANSWER = struct.Struct("<dddII")
# Milliseconds to stay away (-1: none), which error, bytes of the reason.
_ERROR = struct.Struct("<iBB")
_COUNT = struct.Struct("<Ixxxx")
_UNKNOWN = float("nan")
# Several times the largest request or answer: more is no frame of ours.
MAX_BODY_BYTES = 1 << 30
_LONGEST_MS = (1 << 31) - 1

Part: TypeAlias = "bytes | bytearray | memoryview"


class Kind(IntEnum):
    """What a frame is. A front end's are below 16, the main process's above."""

    RESERVE = 1
    COMPUTE = 2
    CANCEL = 3
    ASK_HEALTH = 4
    OBSERVATIONS = 5
    LISTENING = 6
    BEAT = 7
    SETUP = 16
    TOKENIZER = 17
    STATE = 18
    STOP = 19
    ADMITTED = 20
    ANSWER = 21
    ERROR = 22
    HEALTH = 23


class Frame(NamedTuple):
    """One message.

    Attributes:
        kind: A Kind.
        call: Which request of the front end it is about; 0 for none.
        body: By kind.
    """

    kind: int
    call: int
    body: bytes


class FramingError(ValueError):
    """The other side sent what is no frame: a mistake of ours."""


def head(kind: Kind, call: int, parts: Sequence[Part]) -> bytes:
    """What goes before a body of these parts."""
    return _HEAD.pack(sum(len(part) for part in parts), kind, call)


class FrameReader:
    """Puts frames together from the pieces in which they come."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now.

        Raises:
            FramingError: A body would be larger than any of ours.
        """
        received = self._received
        received += data
        place, end = 0, len(received)
        try:
            while end - place >= _HEAD.size:
                size, kind, call = _HEAD.unpack_from(received, place)
                if size > MAX_BODY_BYTES:
                    raise FramingError(f"a frame of {size} bytes; expected at most {MAX_BODY_BYTES}")
                begin = place + _HEAD.size
                if begin + size > end:
                    return
                place = begin + size
                yield Frame(kind, call, bytes(received[begin:place]))
        finally:
            del received[:place]


# --- requests -------------------------------------------------------------------------------------


def reservation(tokens: int, terms: Terms) -> bytes:
    """Body of RESERVE."""
    return _packed(terms, tokens)


def read_reservation(body: bytes) -> tuple[int, Terms]:
    """Tokens, and the terms."""
    return _unpacked(body)


def rows(asked: TokenRows, terms: Terms) -> tuple[Part, ...]:
    """Body of COMPUTE."""
    opening = _packed(terms, len(asked.lengths))
    return opening, _bytes(asked.lengths, "<i4"), _bytes(asked.token_ids, "<i4")


def read_rows(body: bytes) -> tuple[TokenRows, Terms]:
    """The rows without a copy, and the terms."""
    count, terms = _unpacked(body)
    lengths = _array(body, np.int32, count, _TERMS.size)
    ids = _array(body, np.int32, -1, _TERMS.size + 4 * count)
    return TokenRows(ids, lengths), terms


def _packed(terms: Terms, count: int) -> bytes:
    waited_ms = _UNKNOWN if terms.waited_ms is None else terms.waited_ms
    return _TERMS.pack(terms.deadline, waited_ms, count, terms.priority, terms.is_repeated)


def _unpacked(body: bytes) -> tuple[int, Terms]:
    deadline, waited_ms, count, priority, is_repeated = _unpack(_TERMS, body)
    return count, Terms(Priority(priority), deadline, bool(is_repeated), _known(waited_ms))


def answer(computation: Computation) -> tuple[Part, ...]:
    """Body of ANSWER: the rows as they were pooled; what the caller wants of them, the front end makes."""
    pooled = computation.computed.pooled
    drain_ms = _UNKNOWN if computation.drain_ms is None else computation.drain_ms
    opening = _ANSWER.pack(computation.queue_ms, computation.compute_ms, drain_ms, *pooled.shape)
    return opening, _bytes(pooled, "<f4")


def read_answer(body: bytes) -> Computation:
    """The rows without a copy, and at unit length."""
    queue_ms, compute_ms, drain_ms, count, dimension = _unpack(_ANSWER, body)
    pooled = _array(body, np.float32, count * dimension, _ANSWER.size).reshape(count, dimension)
    return Computation(Computed(pooled, unit(pooled)), queue_ms, compute_ms, _known(drain_ms))


# --- errors ---------------------------------------------------------------------------------------

# Their places are the wire's: both processes run the same code.
ERRORS: tuple[type[errors.SluiceError], ...] = (
    errors.SluiceError,
    errors.InvalidRequestError,
    errors.InputTooLongError,
    errors.OverloadedError,
    errors.DeadlineTooShortError,
    errors.DeadlineExceededError,
    errors.DrainingError,
    errors.NotReadyError,
    errors.ServerFailedError,
    errors.BatchFailedError,
    errors.ModelLoadError,
    errors.UnauthenticatedError,
)
_PLACES = {kind: place for place, kind in enumerate(ERRORS)}


def error(told: errors.SluiceError) -> bytes:
    """Body of ERROR."""
    retry_after_ms, reason = -1, b""
    if isinstance(told, errors.OverloadedError):
        reason = told.reason.encode()
        if told.retry_after_ms is not None:
            retry_after_ms = min(told.retry_after_ms, _LONGEST_MS)
    return _ERROR.pack(retry_after_ms, _PLACES.get(type(told), 0), len(reason)) + reason + str(told).encode()


def read_error(body: bytes) -> errors.SluiceError:
    """The same error, with all that it says."""
    retry_after_ms, place, reason_bytes = _unpack(_ERROR, body)
    if place >= len(ERRORS):
        raise FramingError(f"error {place}; expected less than {len(ERRORS)}")
    message_at = _ERROR.size + reason_bytes
    message = body[message_at:].decode()
    kind: type[errors.SluiceError] = ERRORS[place]
    if kind is not errors.OverloadedError:
        return kind(message)
    reason = body[_ERROR.size : message_at].decode()
    return errors.OverloadedError(message, None if retry_after_ms < 0 else retry_after_ms, reason)


# --- observations ---------------------------------------------------------------------------------


def observations(told: Observations) -> tuple[Part, ...]:
    """Body of OBSERVATIONS."""
    ended = [[api, code, count] for (api, code), count in told.ended.items()]
    counts = json.dumps({"began": told.began, "ended": ended, "rejected": told.rejected}).encode()
    return _COUNT.pack(len(told.answers)), _bytes(told.answers, "<f8"), counts


def read_observations(body: bytes) -> Observations:
    """The same observations."""
    (count,) = _unpack(_COUNT, body)
    size = 8 * count * len(TIMES)
    times = _array(body, np.float64, count * len(TIMES), _COUNT.size).reshape(count, len(TIMES))
    counts = json.loads(body[_COUNT.size + size :])
    ended = Counter({(api, code): number for api, code, number in counts["ended"]})
    rejected = {reason: Refused(*numbers) for reason, numbers in counts["rejected"].items()}
    return Observations(Counter(counts["began"]), ended, times, rejected)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _bytes(array: NDArray[np.generic], dtype: str) -> memoryview:
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def _array(body: bytes, dtype: type[np.generic], count: int, offset: int) -> NDArray[Any]:
    try:
        return np.frombuffer(body, np.dtype(dtype).newbyteorder("<"), count, offset)
    except ValueError as error:
        raise FramingError(f"a body of {len(body)} bytes is too short: {error}") from error


def _unpack(form: struct.Struct, body: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack_from(body)
    except struct.error as error:
        raise FramingError(f"a body of {len(body)} bytes is too short: {error}") from error
