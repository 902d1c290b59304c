"""Inputs of any number become requests of a bounded size; replies become one array again. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from sluice.v1 import embeddings_pb2 as pb

Inputs = Sequence[str] | Sequence[Sequence[int]]

_DTYPES: dict[int, np.dtype[np.generic]] = {
    pb.DATA_TYPE_UNSPECIFIED: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_INT8: np.dtype("i1"),
}


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """What is asked of every input.

    Attributes:
        prompt_name: One of the model's own prompts, put before each text.
        truncate: An input too long for the model loses its end or its start, or is refused.
        dimensions: Keep only the first so many; None keeps all.
        normalize: Rows of unit length.
        output_dtype: On the wire and in the array.
        priority: `batch` is refused first when the service is under pressure.
    """

    prompt_name: str | None = None
    truncate: Literal["end", "start", "none"] = "end"
    dimensions: int | None = None
    normalize: bool = True
    output_dtype: Literal["float32", "float16", "int8"] = "float32"
    priority: Literal["interactive", "batch"] = "interactive"


def split(inputs: Inputs, options: EmbedOptions, *, max_inputs: int, max_bytes: int) -> Iterator[pb.EmbedRequest]:
    """Requests that hold all inputs in order, each of at most so many inputs and about so many bytes.

    An input larger than max_bytes travels alone: whether it is too long is the server's decision.

    Raises:
        TypeError: An input is neither a text nor a sequence of token ids.
    """
    start, size = 0, 0
    for position, one in enumerate(inputs):
        one_size = _wire_bytes(one, position)
        if position > start and (position - start >= max_inputs or size + one_size > max_bytes):
            yield _request(inputs[start:position], options)
            start, size = position, 0
        size += one_size
    if start < len(inputs):
        yield _request(inputs[start:], options)


def decode(response: pb.EmbedResponse) -> NDArray[np.generic]:
    """The reply's tensor as (inputs, dimensions), without a copy and so read-only."""
    tensor = response.embeddings
    return np.frombuffer(tensor.data, dtype=_DTYPES[tensor.dtype]).reshape(tuple(tensor.shape))


def join(parts: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """All parts as one array of the caller's own; (0, 0) when nothing was asked."""
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def _wire_bytes(one: object, position: int) -> int:
    if isinstance(one, str):
        return len(one.encode())
    if isinstance(one, Sequence | np.ndarray):
        return 4 * len(one)
    raise TypeError(f"input {position} is a {type(one).__name__}; expected a text or a sequence of token ids")


def _request(inputs: Inputs, options: EmbedOptions) -> pb.EmbedRequest:
    request = pb.EmbedRequest(
        prompt_name=options.prompt_name,
        truncate=f"TRUNCATE_{options.truncate.upper()}",
        dimensions=options.dimensions or 0,
        normalize=options.normalize,
        output_dtype=f"DATA_TYPE_{options.output_dtype.upper()}",
        priority=f"PRIORITY_{options.priority.upper()}",
    )
    if isinstance(inputs[0], str):
        # Ids among texts are protobuf's own TypeError.
        request.texts.values.extend(cast("Sequence[str]", inputs))
    else:
        rows = [np.asarray(row, dtype="<i4") for row in inputs]
        request.token_ids.ids = np.concatenate(rows).tobytes()
        request.token_ids.lengths = np.array([row.size for row in rows], dtype="<i4").tobytes()
    return request
