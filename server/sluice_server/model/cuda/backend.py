"""The packed layout on a GPU: a batch is staged and launched, and somebody else waits for it.

launch: slot ▶ block of int32 ▶ device ▶ graph (model, pooling) ▶ slot ▶ mark      wait: mark ▶ rows
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sluice_server.backend import Batch, BatchOutput, ModelInfo, OutOfDeviceMemoryError
from sluice_server.model.cuda import shapes, staging
from sluice_server.model.cuda.forward import PackedForward
from sluice_server.model.cuda.graphs import Graphs
from sluice_server.model.cuda.shapes import Shape
from sluice_server.model.cuda.slots import SLOTS, Slot, Slots
from sluice_server.model.cuda.streams import DeviceQueue, Mark
from sluice_server.model.pooling import Pooling
from sluice_server.model.similarity import lowest_cosine

logger = logging.getLogger(__name__)

# Far beyond any batch: the device hangs.
_MOST_SECONDS = 60.0
# Of the rows that the warm-up fills a shape with, where its rows may be so few.
_USUAL_ROW_TOKENS = 64
# Below this cosine a graph computes something else than what was captured.
_SAME_COSINE = 0.999


@dataclasses.dataclass(frozen=True, slots=True)
class ModelParts:
    """What a batch's input and output are made with.

    Attributes:
        pooling: Of the model.
        pad_id: Fills batches up.
        first_position: Of a row: padding_idx + 1 in RoBERTa's family, else 0.
        fingerprint: Of the model's files; see fingerprint.py.
    """

    pooling: Pooling
    pad_id: int
    first_position: int
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The largest batch.

    Attributes:
        tokens: Of one batch.
        rows: Of one batch.
    """

    tokens: int
    rows: int


@dataclasses.dataclass(frozen=True, slots=True)
class LaunchedBatch:
    """A batch under way.

    Attributes:
        slots: Where the slot goes back to.
        slot: Holds the batch.
        mark: Behind it.
        totals: float32 (rows, 1), that each row's sum is divided by.
        computed_tokens: Filling ones included.
    """

    slots: Slots
    slot: Slot
    mark: Mark
    totals: NDArray[np.float32]
    computed_tokens: int

    def wait(self) -> BatchOutput:
        """The result, once it is there; called once, in any thread.

        Raises:
            DeviceLostError: The device failed, or did not finish in time; it may still write, so the slot stays taken.
        """
        self.mark.wait(_MOST_SECONDS)
        output = BatchOutput(np.divide(self.slot.rows[: len(self.totals)], self.totals), self.computed_tokens)
        self.slots.give_back(self.slot)
        return output


class GraphBackend:
    """A model on a GPU, or on a CPU without graphs.

    Args:
        model: In evaluation mode, on the device; takes packed rows.
        info: What is served.
        parts: See ModelParts.
        limits: The largest batch.
        queue: Of the device.

    Attributes:
        precision: That weights are multiplied in, where it is not the model's own; None else.
        is_compiled: Whether the model's layers are.
    """

    def __init__(
        self, model: PreTrainedModel, info: ModelInfo, parts: ModelParts, limits: Limits, queue: DeviceQueue
    ) -> None:
        self.info = info
        self.precision: str | None = None
        self.is_compiled = False
        self._parts, self._queue = parts, queue
        self._shapes = shapes.shapes(limits.tokens, limits.rows, info.max_position_tokens)
        self._most = Limits(self._shapes[-1].tokens, max(one.rows for one in self._shapes))
        self._limits = limits
        size = staging.sections(Shape(self._most.tokens, self._most.rows)).size
        with queue.entered():
            self._forward = PackedForward(model, size, self._most.tokens)
        self._graphs = Graphs(self._forward, queue.stream)
        pinned = queue.stream is not None
        self._slots = Slots([Slot(size, self._most.rows, info.dimension, pinned=pinned) for _ in range(SLOTS)])

    @property
    def execution(self) -> str:
        """`compiled-graphs`, or what is missing left out; `eager` where both are; its precision behind it."""
        kinds = (("compiled", self.is_compiled), ("graphs", len(self._graphs) > 0))
        kind = "-".join(name for name, is_so in kinds if is_so) or "eager"
        return f"{kind}-{self.precision}" if self.precision else kind

    @property
    def token_steps(self) -> list[int]:
        """Of the shapes."""
        return [one.tokens for one in self._shapes]

    def fingerprint(self) -> str:
        """Of the model's files, whatever the precision and layout that they are served in."""
        return self._parts.fingerprint

    def warm_up_batches(self, boundaries: Sequence[int]) -> list[Batch]:
        """One that fills each shape, the largest first: what it leaves of the pool the smaller ones take.

        Then for each bucket one row, and as many as a batch holds: a token costs more in a long row.

        Args:
            boundaries: Of the buckets, under which the costs are kept.
        """
        rows, positions = self._limits.rows, self.info.max_position_tokens
        wanted = [(one.tokens, max(_USUAL_ROW_TOKENS, -(-one.tokens // rows))) for one in reversed(self._shapes)]
        for boundary in boundaries:
            length = min(boundary, positions)
            wanted += [(length, length), (min(self._shapes[-1].tokens, rows * length), length)]
        return [
            shapes.full_batch(tokens, min(length, positions), self.info.vocab_size, boundaries)
            for tokens, length in wanted
        ]

    def prepare(self, batch: Batch) -> bool:
        """Captures the graph of a batch's shape, once; a graph that computes something else is left out.

        Returns:
            False where the batch does not fit the device's memory, graph or not.
        """
        if self._shape(batch) in self._graphs:
            return True
        try:
            expected = self.embed(batch).embeddings
        except OutOfDeviceMemoryError as error:
            logger.warning("a batch of %d tokens does not fit the device: %s", batch.useful_tokens, error)
            return False
        shape = self._shape(batch)
        with self._queue.entered(), torch.inference_mode():
            captured = self._graphs.capture(shape)
        if captured and not lowest_cosine(expected, self.embed(batch).embeddings) >= _SAME_COSINE:
            logger.error("%s is computed without a graph: its graph computes something else", shape)
            self._graphs.drop(shape)
        return True

    def embed(self, batch: Batch) -> BatchOutput:
        """Computes one batch and waits for it.

        Raises:
            OutOfDeviceMemoryError: It did not fit the device.
        """
        return self.launch(batch).wait()

    def launch(self, batch: Batch) -> LaunchedBatch:
        """Hands a batch to the device and returns at once, or as soon as fewer than two are under way.

        Raises:
            OutOfDeviceMemoryError: It did not fit the device.
            DeviceLostError: It failed, or those under way did not end in time.
            ValueError: It is larger than the limits.
        """
        shape = self._shape(batch)
        slot = self._slots.take(_MOST_SECONDS)
        try:
            with self._queue.entered(), torch.inference_mode():
                return self._enqueue(slot, shape, batch)
        except BaseException as error:
            # What was enqueued before the failure may still read the slot: it comes back behind that.
            self._queue.mark().wait(_MOST_SECONDS)
            self._slots.give_back(slot)
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
                raise OutOfDeviceMemoryError(str(error)) from error
            raise

    def _enqueue(self, slot: Slot, shape: Shape, batch: Batch) -> LaunchedBatch:
        weights, totals = self._parts.pooling.weights(batch.token_ids, batch.lengths)
        parts = staging.fill(
            slot.block, shape, batch, weights, pad_id=self._parts.pad_id, first_position=self._parts.first_position
        )
        rows = len(batch.lengths)
        self._forward.input[: parts.size].copy_(slot.input[: parts.size], non_blocking=True)
        pooled = self._graphs.compute(shape)
        slot.output[:rows].copy_(pooled[:rows], non_blocking=True)
        return LaunchedBatch(self._slots, slot, self._queue.mark(), totals, shape.tokens)

    def _shape(self, batch: Batch) -> Shape:
        """One that has a graph, or the batch's own; what is larger than the limits has no place to be staged in."""
        shape = shapes.fit(self._shapes, batch) or shapes.exactly(batch)
        if shape.tokens > self._most.tokens or shape.rows > self._most.rows:
            raise ValueError(
                f"{shape.tokens} tokens in {shape.rows} rows; expected at most {self._most.tokens} in {self._most.rows}"
            )
        return shape
