"""OpenVINO on the exported model, with one stream of all threads and with one stream for each."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engines.base import Embeddings, Texts, Way, mean_rows, rectangle, sorted_ways

# In an environment of their own (dev/locks/peers.txt).
_openvino: Any = importlib.import_module("openvino")


class OpenVinoEngine:
    """A compiled model for each number of streams, with a queue of as many requests.

    Args:
        folder: As export.py wrote it.
        dtype: float32 or bfloat16.
        threads: Of all streams together.
    """

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        core = _openvino.Core()
        model = core.read_model(folder / "plain.onnx")
        self._queues = {}
        for streams in sorted({1, threads}):
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": streams,
                },
            )
            self._queues[streams] = _openvino.AsyncInferQueue(compiled, streams)
        self._pooled: Embeddings | None = None
        for queue in self._queues.values():
            queue.set_callback(self._pool)

    def ways(self, lengths: Sequence[int]) -> Sequence[Way]:
        """See Engine."""
        return sorted_ways(lengths, {f"{streams} streams": streams for streams in self._queues})

    def start(self, batch: Texts, option: Any) -> int:
        """See Engine."""
        ids, mask = rectangle(batch.rows)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        self._queues[option].start_async(inputs, mask)
        return int(ids.size)

    def finish(self) -> None:
        """See Engine."""
        for queue in self._queues.values():
            queue.wait_all()

    def embed(self, batch: Texts) -> Embeddings:
        """See Engine."""
        self.start(batch, 1)
        self.finish()
        assert self._pooled is not None
        return self._pooled

    def _pool(self, request: Any, mask: Any) -> None:
        self._pooled = mean_rows(request.get_output_tensor(0).data, mask)
