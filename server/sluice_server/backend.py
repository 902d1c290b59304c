"""The seam between the pipeline and the model: plain numpy on both sides, no torch in the signatures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served. All of it is known once the model is loaded, before the warm-up.

    Attributes:
        uri: As the user wrote it (MODEL_PATH).
        revision: The exact revision served (a hub commit), or None where the source has none.
        dimension: Width of one embedding.
        max_input_tokens: Where texts are truncated, special tokens included.
        max_position_tokens: The longest row of ids that the model's positions allow.
        vocab_size: Valid ids are 0 … vocab_size - 1.
        dtype: Of the computation: float32, bfloat16 or float16.
        device: cpu or cuda.
        layout: packed or padded.
        pooling: mean, cls or last.
        prompts: The model's own prompts by name (config_sentence_transformers.json).
        default_prompt_name: Of the one that goes before texts for which none is named; None where none does.
    """

    uri: str
    revision: str | None
    dimension: int
    max_input_tokens: int
    max_position_tokens: int
    vocab_size: int
    dtype: str
    device: str
    layout: str
    pooling: str
    prompts: dict[str, str]
    default_prompt_name: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward's input: ragged rows, one after the other, without padding.

    Attributes:
        token_ids: int32 (total,).
        lengths: int32 (n,), each at least 1; they sum to total.
        bucket: Every row is at most this long; the L of the padded layout.
        rows: n rounded up to a fixed batch size; the B of the padded layout (dummy rows fill it).
    """

    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    bucket: int
    rows: int

    @property
    def useful_tokens(self) -> int:
        """Tokens that somebody asked for, padding excluded."""
        return int(self.token_ids.size)


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """One forward's result.

    Attributes:
        embeddings: float32 (n, dimension), pooled, *not* normalized.
        computed_tokens: Positions computed, padding included.
    """

    embeddings: NDArray[np.float32]
    computed_tokens: int


class OutOfDeviceMemoryError(RuntimeError):
    """A batch did not fit the device; a smaller one may."""


class DeviceLostError(RuntimeError):
    """The device computes nothing any more for this process; the text says how that showed."""


class Backend(Protocol):
    """A loaded model. Every call comes from the one device worker thread."""

    @property
    def info(self) -> ModelInfo:
        """What is served."""

    @property
    def execution(self) -> str:
        """`eager` (as loaded), `compiled`, `native`, `native-int8`, or on a GPU `compiled-graphs`.

        A GPU leaves out what it does not do, and says `-fp8` behind it in fp8. It may become faster at any time.
        """

    def embed(self, batch: Batch) -> BatchOutput:
        """Computes one batch; blocks until the result is on the host.

        Raises:
            OutOfDeviceMemoryError: The batch did not fit.
        """

    def fingerprint(self) -> str:
        """A digest of the embeddings of fixed texts, tolerant of dtype noise."""


class Launched(Protocol):
    """A batch that the device has."""

    def wait(self) -> BatchOutput:
        """Blocks until the result is on the host; called once, in any thread.

        Raises:
            OutOfDeviceMemoryError: The batch did not fit after all.
            DeviceLostError: The device failed for good, or did not finish in time.
        """


@runtime_checkable
class LaunchingBackend(Backend, Protocol):
    """A backend whose device computes while the host prepares the next batch."""

    @property
    def token_steps(self) -> Sequence[int]:
        """Tokens that a batch is filled up to, ascending."""

    def warm_up_batches(self, boundaries: Sequence[int]) -> list[Batch]:
        """One of each shape; boundaries are the buckets', under which costs are kept."""

    def prepare(self, batch: Batch) -> bool:
        """Makes ready for batches of this one's shape; False where it does not fit the device's memory."""

    def launch(self, batch: Batch) -> Launched:
        """Hands over a batch; blocks only while as many are under way as the device takes.

        Raises:
            OutOfDeviceMemoryError: The batch did not fit.
        """
