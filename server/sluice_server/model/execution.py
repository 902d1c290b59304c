"""Computing a batch, padded or packed. All but `adopt` runs in the device worker's thread."""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sluice_server.backend import Batch, BatchOutput, ModelInfo, OutOfDeviceMemoryError
from sluice_server.model import attention, grid, packed, rectangles
from sluice_server.model.packed import Forward
from sluice_server.model.pooling import Pooling, RowSums, padded_sums
from sluice_server.model.similarity import lowest_cosine

# Below this cosine to the model as it was loaded, a compiled one computes something else.
_SAME_COSINE = 0.999
# Below this cosine to float32 a precision costs more than noise.
FAITHFUL_COSINE = 0.99
# What no batch of a CPU goes beyond: the time that the batcher gives one under a backlog, and tokens.
_LONGEST_BATCH_SECONDS = 0.1
_MOST_REHEARSED_TOKENS = 4096
_REHEARSED_ROW_TOKENS = 64


class TorchBackend:
    """A model on its device.

    Args:
        model: In evaluation mode, on the device.
        info: What is served.
        pooling: Of the model.
        pad_id: Fills the padded layout.
        first_position: Of a row: padding_idx + 1 in RoBERTa's family, else 0.
        fingerprint: Of the model's files; see fingerprint.py.
        compile_padded: Has torch compile the padded layout, with its own CUDA graphs on a GPU; the first batch pays.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        info: ModelInfo,
        pooling: Pooling,
        *,
        pad_id: int,
        first_position: int,
        fingerprint: str,
        compile_padded: bool = False,
    ) -> None:
        self.info = info
        compiles = compile_padded and info.layout == "padded"
        self.execution = "compiled" if compiles else "eager"
        self._pooling = pooling
        self._pad_id = pad_id
        self.first_position = first_position
        self._fingerprint = fingerprint
        attention.use(model, info)
        self._compute: Callable[[Batch], BatchOutput]
        if info.layout == "padded":
            self._compute = functools.partial(self._padded, _compiled(model) if compiles else model)
        elif attention.takes_packed(model):
            self._compute = functools.partial(self._packed, self._row_sums(packed.eager(model)))
        else:
            self._compute = functools.partial(self._in_rectangles, model)

    def embed(self, batch: Batch) -> BatchOutput:
        """Computes one batch.

        Raises:
            OutOfDeviceMemoryError: It did not fit the device.
        """
        try:
            return self._compute(batch)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfDeviceMemoryError(str(error)) from error

    def fingerprint(self) -> str:
        """Of the model's files, whatever the precision and layout that they are served in."""
        return self._fingerprint

    def adopt(
        self, sums: RowSums, probe: Batch, execution: str, exact: NDArray[np.float32] | None = None
    ) -> str | None:
        """Computes the same model with other code from now on; called in any thread.

        The worker takes it up with its next batch, and the model as it was loaded is let go.

        Args:
            sums: Of the packed layout.
            probe: Must give the same embeddings.
            execution: compiled, native or native-int8.
            exact: Of code that rounds more than the loaded model: the probe's embeddings in float32, which it must come
                near to instead.

        Returns:
            Why it was not taken over; None where it was.
        """
        compute = functools.partial(self._packed, sums)
        expected = self._compute(probe).embeddings if exact is None else exact
        cosine = lowest_cosine(expected, compute(probe).embeddings)
        # Negated, so that NaN is a difference too.
        if not cosine >= (_SAME_COSINE if exact is None else FAITHFUL_COSINE):
            whose = "the loaded model's" if exact is None else "float32's"
            return f"its embeddings differ from {whose} (cosine {cosine:.4f})"
        if execution == "compiled":
            self._rehearse(compute)
        self._compute, self.execution = compute, execution
        return None

    def adopt_compiled(self, forward: Forward, probe: Batch) -> str | None:
        """Computes with the same model compiled by oneDNN, a size of the grid at a time; see adopt."""
        return self.adopt(self._row_sums(forward), probe, "compiled")

    def _row_sums(self, forward: Forward) -> RowSums:
        return packed.row_sums(forward, pad_id=self._pad_id, first_position=self.first_position)

    def _rehearse(self, compute: Callable[[Batch], BatchOutput]) -> None:
        """Computes each size that a batch may have once: its memory is taken now, and its code made.

        Traffic would do it too, with each first batch of a size slower, and memory that grows for minutes.
        """
        row = min(_REHEARSED_ROW_TOKENS, self.info.max_position_tokens)
        for size in grid.sizes(_MOST_REHEARSED_TOKENS):
            lengths = np.diff(np.append(np.arange(0, size, row), size)).astype(np.int32)
            ids = np.full(size, self._pad_id, dtype=np.int32)
            # This thread's own time: what else the machine does must not end it early.
            began = time.thread_time()
            compute(Batch(ids, lengths, row, len(lengths)))
            if time.thread_time() - began > _LONGEST_BATCH_SECONDS:
                return

    @torch.inference_mode()
    def _padded(self, model: Callable[..., Any], batch: Batch) -> BatchOutput:
        """(rows, bucket): rows rounded up with dummies, so that shapes repeat."""
        count, width = len(batch.lengths), min(batch.bucket, self.info.max_position_tokens)
        ids = np.full((batch.rows, width), self._pad_id, dtype=np.int64)
        real = np.arange(width)[None, :] < batch.lengths[:, None]
        ids[:count][real] = batch.token_ids
        # A dummy row attends to one token: one that attends to none would make NaN.
        lengths = np.ones(batch.rows, dtype=np.int64)
        lengths[:count] = batch.lengths
        on_device = torch.from_numpy(ids).to(self.info.device)
        row_lengths = torch.from_numpy(lengths).to(self.info.device)
        places = torch.arange(width, device=self.info.device)[None, :]
        # Told, not left to the model: RoBERTa would guess them from the ids.
        states = model(
            input_ids=on_device,
            position_ids=(places + self.first_position).expand(batch.rows, -1),
            attention_mask=(places < row_lengths[:, None]).long(),
        ).last_hidden_state
        weights = np.zeros((batch.rows, width), dtype=np.float32)
        weights[:count][real], totals = self._pooling.weights(batch.token_ids, batch.lengths)
        sums = padded_sums(states, torch.from_numpy(weights).to(self.info.device))
        return BatchOutput(np.divide(sums[:count].cpu().numpy(), totals), ids.size)

    def _in_rectangles(self, model: PreTrainedModel, batch: Batch) -> BatchOutput:
        """A packed batch for a model with an attention of its own."""
        embeddings = np.empty((len(batch.lengths), self.info.dimension), dtype=np.float32)
        computed_tokens = 0
        for kept, part in rectangles.cut(batch):
            output = self._padded(model, part)
            embeddings[kept] = output.embeddings
            computed_tokens += output.computed_tokens
        return BatchOutput(embeddings, computed_tokens)

    def _packed(self, sums: RowSums, batch: Batch) -> BatchOutput:
        weights, totals = self._pooling.weights(batch.token_ids, batch.lengths)
        summed = sums(batch, weights)
        return BatchOutput(np.divide(summed.sums, totals), summed.computed_tokens)


def _compiled(model: PreTrainedModel) -> Callable[..., Any]:
    """Compiled once for all shapes; a GPU then keeps a graph of each. Results are copied before the next forward."""
    compiled: Callable[..., Any] = torch.compile(model, mode="reduce-overhead", dynamic=True)
    return compiled
