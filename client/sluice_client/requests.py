"""What is asked and what comes back: options, inputs to a request, replies to arrays. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as pb

from sluice_client.errors import InvalidRequestError

Input = str | NDArray[np.int32]
Inputs = Iterable[str] | Iterable[Sequence[int]] | Iterable[NDArray[np.integer[Any]]]

_DTYPES: dict[int, np.dtype[np.generic]] = {
    pb.DATA_TYPE_UNSPECIFIED: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_INT8: np.dtype("i1"),
}
_MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """What is asked of every input.

    Attributes:
        prompt_name: One of the model's own prompts, put before each text; the model's default, if it has one, where it
            is None, and nothing where it is empty.
        truncate: An input too long for the model loses its end or its start, or is refused.
        dimensions: Keep only the first so many; None keeps all.
        normalize: Rows of unit length.
        output_dtype: On the wire and in the array.
        priority: `batch` is refused first when the service is under pressure.

    Raises:
        ValueError: A value that is not one of those allowed.
    """

    prompt_name: str | None = None
    truncate: Literal["end", "start", "none"] = "end"
    dimensions: int | None = None
    normalize: bool = True
    output_dtype: Literal["float32", "float16", "int8"] = "float32"
    priority: Literal["interactive", "batch"] = "interactive"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, allowed = getattr(self, field.name), get_args(hints[field.name])
            if isinstance(field.default, str) and value not in allowed:
                raise ValueError(f"{field.name}={value!r}: expected one of {', '.join(allowed)}")
        if self.dimensions is not None and self.dimensions < 1:
            raise ValueError(f"dimensions={self.dimensions}: expected at least 1, or None for all")

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the arrays that come back."""
        return np.dtype(self.output_dtype)


def check_input(one: object, position: int) -> Input:
    """A text as it is, or a row of token ids as int32.

    Raises:
        TypeError: Neither a text nor a row of whole numbers.
        InvalidRequestError: No tokens, an id that no vocabulary holds, or a text that is not Unicode.
    """
    if isinstance(one, str):
        # A lone surrogate is the one thing that a str may hold and UTF-8 may not.
        if not one.isascii():
            try:
                one.encode()
            except UnicodeEncodeError as error:
                raise _invalid(position, f"is not Unicode text: {error}") from None
        return one
    if isinstance(one, bytes | bytearray) or not (isinstance(one, Sequence) or hasattr(one, "__array__")):
        raise TypeError(f"input {position} is a {type(one).__name__}; expected a text or a sequence of token ids")
    row = np.asarray(one)
    if row.size == 0:
        raise _invalid(position, "has no tokens; expected at least 1")
    if row.ndim != 1 or row.dtype.kind not in "iu":
        raise TypeError(
            f"input {position} is of type {row.dtype} and shape {row.shape}; expected a text or one row of token ids"
        )
    lowest, highest = int(row.min()), int(row.max())
    if lowest < 0 or highest > _MAX_TOKEN_ID:
        wrong = lowest if lowest < 0 else highest
        raise _invalid(position, f"holds the token id {wrong}; expected 0 to {_MAX_TOKEN_ID}")
    return row.astype("<i4")


def _invalid(position: int, what: str) -> InvalidRequestError:
    return InvalidRequestError(None, f"input {position} {what}", inputs=range(position, position + 1))


def encode(inputs: Sequence[Input], options: EmbedOptions) -> pb.EmbedRequest:
    """One request; its inputs are all texts or all rows of ids."""
    request = pb.EmbedRequest(
        prompt_name=options.prompt_name,
        truncate=f"TRUNCATE_{options.truncate.upper()}",
        dimensions=options.dimensions or 0,
        normalize=options.normalize,
        output_dtype=f"DATA_TYPE_{options.output_dtype.upper()}",
        priority=f"PRIORITY_{options.priority.upper()}",
    )
    if isinstance(inputs[0], str):
        request.texts.values.extend(cast("Sequence[str]", inputs))
    else:
        rows = cast("Sequence[NDArray[np.int32]]", inputs)
        request.token_ids.ids = np.concatenate(rows).tobytes()
        request.token_ids.lengths = np.array([row.size for row in rows], dtype="<i4").tobytes()
    return request


def decode(response: pb.EmbedResponse, inputs: int) -> NDArray[np.generic]:
    """The reply's tensor as (inputs, dimensions), without a copy and so read-only.

    Raises:
        ValueError: The tensor is not of that shape, or its bytes are not what its shape and dtype say.
    """
    tensor = response.embeddings
    shape, dtype = tuple(tensor.shape), _DTYPES.get(tensor.dtype)
    if len(shape) != 2 or shape[0] != inputs or dtype is None:  # noqa: PLR2004 - rows and columns
        raise ValueError(f"the reply has the shape {shape} and dtype {tensor.dtype}; {inputs} inputs were asked")
    if len(tensor.data) != dtype.itemsize * shape[0] * shape[1]:
        raise ValueError(f"the reply holds {len(tensor.data)} bytes; its shape is {shape} of {dtype}")
    return np.frombuffer(tensor.data, dtype=dtype).reshape(shape)
