"""What comes back, in the caller's terms: runs of inputs with their rows, and all rows as one array. Pure."""

from collections.abc import Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice_client.errors import EmbeddingError
from sluice_client.requests import EmbedOptions, Input


@dataclass(frozen=True, slots=True)
class Embedded:
    """A run of inputs and what came back for them.

    Attributes:
        inputs: Texts, or rows of token ids as int32.
        embeddings: (inputs, dimensions), read-only.
        first: Position of the first of them among all inputs.
        truncated: Positions, among all inputs, of those that were cut to the model's length.
        tokens_used: Computed for them, special tokens included.
    """

    inputs: tuple[Input, ...]
    embeddings: NDArray[np.generic]
    first: int
    truncated: tuple[int, ...]
    tokens_used: int


class Rows:
    """Gathers the rows of one call in one array of the caller's own; of known length without a second copy.

    Args:
        inputs: What is embedded; its length is used where it has one.
        options: Of the call.
        dimension: Of the service's embeddings.
        target: For the error.
    """

    def __init__(self, inputs: object, options: EmbedOptions, dimension: int, target: str) -> None:
        self._expected = len(inputs) if isinstance(inputs, Sized) else None
        self._empty = np.empty((0, min(options.dimensions or dimension, dimension)), options.dtype)
        self._target = target
        self._whole: NDArray[np.generic] | None = None
        self._parts: list[NDArray[np.generic]] = []
        self._count = 0

    def add(self, embedded: Embedded) -> None:
        """Takes the next rows.

        Raises:
            EmbeddingError: They have another number of dimensions than the ones before.
        """
        rows = embedded.embeddings
        before = self._whole if self._whole is not None else (self._parts[0] if self._parts else rows)
        if before.shape[1] != rows.shape[1]:
            raise EmbeddingError(
                None,
                f"answers of {before.shape[1]} and of {rows.shape[1]} dimensions: "
                "the service changed its model meanwhile; embed again",
                0,
                self._target,
            )
        if self._expected is None:
            self._parts.append(rows)
            return
        if self._whole is None:
            self._whole = np.empty((self._expected, rows.shape[1]), rows.dtype)
        self._whole[self._count : self._count + len(rows)] = rows
        self._count += len(rows)

    def result(self) -> NDArray[np.generic]:
        """All of them: (inputs, dimensions)."""
        if self._whole is not None:
            return self._whole[: self._count]
        return np.concatenate(self._parts) if self._parts else self._empty
