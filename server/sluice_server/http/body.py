"""The body of POST /v1/embeddings: from bytes to inputs, every refusal naming the place and what is allowed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from sluice_server.errors import InvalidRequestError

Texts: TypeAlias = list[str]

_KINDS = {str: "a text", int: "a number", bool: "true or false", type(None): "null"}
_KINDS |= {list: "a list", dict: "an object"}
# orjson reads an integer of more bits as a float.
_BEYOND_64_BITS = 2.0**63
# So much is read in a few milliseconds, by json, too.
SMALL_BYTES = 256 << 10
_ALLOWED = "expected a text, a list of texts, a list of token ids, or a list of such lists"


@dataclass(frozen=True, slots=True)
class IdRows:
    """Token ids of each input, none empty; each id any integer still."""

    rows: list[list[int]]


class EmbeddingsRequest(BaseModel):
    """The body; what OpenAI's clients send beside these is ignored."""

    model_config = ConfigDict(extra="ignore")

    input: Any
    model: StrictStr | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None


def parse(body: bytes) -> EmbeddingsRequest:
    """Reads the body; its input is checked by inputs().

    Raises:
        InvalidRequestError: It is not JSON, or a field holds what it cannot.
    """
    fields = _json(body)
    if not isinstance(fields, dict):
        raise InvalidRequestError(f"the body is {_kind(fields)}; expected an object with the field input")
    try:
        return EmbeddingsRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        shown = _shown(name, first["input"]) if name in fields else name
        raise InvalidRequestError(f"{shown}: {first['msg']}") from error


def inputs(value: object) -> Texts | IdRows:
    """The texts, or the rows of token ids, that `input` holds.

    Raises:
        InvalidRequestError: It is neither, or mixes them, or is empty.
    """
    if isinstance(value, str):
        return _checked_texts([value])
    if not isinstance(value, list):
        raise InvalidRequestError(f"input is {_kind(value)}; {_ALLOWED}")
    if not value:
        raise InvalidRequestError(f"input is an empty list; {_ALLOWED}")
    kind = type(value[0])
    if kind not in {str, int, list}:
        raise InvalidRequestError(f"input[0] is {_kind(value[0])}; {_ALLOWED}")
    _check_kind(value, kind, "input")
    if kind is str:
        return _checked_texts(value)
    if kind is int:
        return IdRows([value])
    for place, row in enumerate(value):
        if not row:
            raise InvalidRequestError(f"input[{place}] is an empty list; expected at least one token id")
        _check_kind(row, int, f"input[{place}]")
    return IdRows(value)


def _json(body: bytes) -> Any:
    """Reads with orjson: the event loop stands still meanwhile."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if len(body) > SMALL_BYTES:
            raise InvalidRequestError(f"the body is not JSON: {error}") from error
        return _read_again(body)


def _read_again(body: bytes) -> Any:
    """With json, which says more of what is wrong, and reads half a surrogate pair, so that its place can be named."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"the body is not JSON: byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise InvalidRequestError(f"the body nests too deep; {_ALLOWED} in the field input") from error
    except ValueError as error:
        raise InvalidRequestError("the body holds a number of thousands of digits; expected token ids") from error


def _refuse_constant(name: str) -> None:
    raise InvalidRequestError(f"the body is not JSON: it holds {name}; expected a finite number")


def _checked_texts(texts: Texts) -> Texts:
    """JSON can escape half of a surrogate pair; no tokenizer can read it."""
    for place, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"input[{place}] holds half a surrogate pair at character {error.start}; expected text as in UTF-8"
            ) from error
    return texts


def _check_kind(values: Sequence[object], kind: type, where: str) -> None:
    """JSON's true is no token id, though Python's is an int."""
    if set(map(type, values)) != {kind}:
        place = next(place for place, value in enumerate(values) if type(value) is not kind)
        expected = "a token id" if kind is int else f"{_KINDS[kind]}, as {where}[0] is"
        raise InvalidRequestError(f"{where}[{place}] is {_kind(values[place])}; expected {expected}")


def _shown(name: str, value: object) -> str:
    """A list or an object may be of any size and depth: its kind says enough."""
    return f"{name} is {_kind(value)}" if isinstance(value, list | dict) else f"{name}={json.dumps(value)}"


def _kind(value: object) -> str:
    if type(value) is not float:
        return _KINDS[type(value)]
    return "a number beyond any vocabulary" if abs(value) >= _BEYOND_64_BITS else "a number that is not whole"
