"""ONNX Runtime on the exported model, as it is, with its operators fused, or in int8."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engines.base import Embeddings, Texts, Way, mean_rows, rectangle, sorted_ways

# In an environment of their own (dev/locks/peers.txt).
onnxruntime: Any = importlib.import_module("onnxruntime")


class OnnxEngine:
    """A session for each form of the model.

    Args:
        folder: As export.py wrote it.
        dtype: float32 or int8.
        threads: Of each session.
    """

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        files = {"float32": ("plain", "fused"), "int8": ("int8", "fused-int8")}[dtype]
        self._sessions = {
            name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in files
            if (folder / f"{name}.onnx").exists()
        }

    def ways(self, lengths: Sequence[int]) -> Sequence[Way]:
        """See Engine."""
        return sorted_ways(lengths, {name: name for name in self._sessions})

    def start(self, batch: Texts, option: Any) -> int:
        """See Engine."""
        ids, mask = rectangle(batch.rows)
        self._run(option, ids, mask)
        return int(ids.size)

    def finish(self) -> None:
        """See Engine."""

    def embed(self, batch: Texts) -> Embeddings:
        """See Engine."""
        return self._run(next(iter(self._sessions)), *rectangle(batch.rows))

    def _run(self, name: str, ids: Any, mask: Any) -> Embeddings:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        return mean_rows(self._sessions[name].run(None, inputs)[0], mask)
