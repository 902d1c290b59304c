"""Whether a request can be served at all. Pure: every refusal names the value and what is allowed."""

from dataclasses import dataclass

import numpy as np

from sluice_server.errors import InputTooLongError, InvalidRequestError
from sluice_server.requests import TokenRows


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may hold."""

    max_inputs: int
    max_tokens: int


def check_input_count(count: int, limits: RequestLimits) -> None:
    """Raises InvalidRequestError unless there are between 1 and max_inputs inputs."""
    if not 1 <= count <= limits.max_inputs:
        raise InvalidRequestError(f"{count} inputs in one request; expected 1 to {limits.max_inputs}")


def check_rows(rows: TokenRows, limits: RequestLimits, *, vocab_size: int, max_tokens_per_row: int) -> None:
    """Checks rows of ids that a caller sent.

    Raises:
        InvalidRequestError: Counts, ids or totals that can never be served.
        InputTooLongError: A row longer than the model's positions.
    """
    check_input_count(len(rows.lengths), limits)
    lengths = rows.lengths.tolist()
    shortest, longest, total = min(lengths), max(lengths), sum(lengths)
    if shortest < 1:
        raise InvalidRequestError(f"input {lengths.index(shortest)} has {shortest} tokens; expected at least 1")
    if longest > max_tokens_per_row:
        raise InputTooLongError(
            f"input {lengths.index(longest)} has {longest} tokens; the model takes {max_tokens_per_row}"
        )
    if total != rows.total_tokens:
        raise InvalidRequestError(
            f"the lengths sum to {total}, but {rows.total_tokens} token ids came; expected as many"
        )
    if total > limits.max_tokens:
        raise InvalidRequestError(f"{total} tokens in one request; expected at most {limits.max_tokens}")
    # As unsigned numbers, those below zero are above all others.
    if np.maximum.reduce(rows.token_ids.view(np.uint32)) >= vocab_size:
        lowest, highest = rows.token_ids.min(), rows.token_ids.max()
        raise InvalidRequestError(
            f"token id {lowest if lowest < 0 else highest} is not in the vocabulary; expected 0 to {vocab_size - 1}"
        )


def check_dimensions(dimensions: int | None, dimension: int) -> None:
    """Raises InvalidRequestError where more dimensions are asked for than the model has."""
    if dimensions is not None and not 1 <= dimensions <= dimension:
        raise InvalidRequestError(f"dimensions={dimensions}; expected 1 to {dimension}")
