"""Sluice's own engine without the server: the same backend, batches in the order in which texts come."""

import time
from collections.abc import Sequence
from typing import Any

from sluice_server.model import ModelConfig, load_model
from sluice_server.model.layout import as_batch

from bench.engines.base import Embeddings, Texts, Way, arrival_ways, unit

_COMPILE_SECONDS = 600


class PackedEngine:
    """Sluice's backend.

    Args:
        model: A folder.
        dtype: auto, float32, bfloat16 or int8, which is multiplied beside the automatic one.
        cache: Of engines and compiled models; None computes the model as it is loaded.

    Raises:
        RuntimeError: This CPU or this model is not computed in int8.
        TimeoutError: No faster engine was there in time.
    """

    def __init__(self, model: str, dtype: str, cache: str | None) -> None:
        config = ModelConfig(
            uri=model,
            dtype="auto" if dtype == "int8" else dtype,
            quantization="int8" if dtype == "int8" else "none",
            compile=cache is not None,
            cache_dir=cache or "/nonexistent",
        )
        self._backend = load_model(config, lambda *_: None).backend
        deadline = time.monotonic() + _COMPILE_SECONDS
        while cache is not None and self._backend.execution == "eager":
            if time.monotonic() > deadline:
                raise TimeoutError("no faster engine was there in time")
            time.sleep(0.5)
        if dtype == "int8" and self._backend.execution != "native-int8":
            raise RuntimeError(f"this CPU or this model is not computed in int8, but {self._backend.execution}")

    def ways(self, lengths: Sequence[int]) -> Sequence[Way]:
        """See Engine."""
        return arrival_ways(lengths)

    def start(self, batch: Texts, option: Any) -> int:
        """See Engine."""
        del option
        return self._backend.embed(as_batch(batch.rows)).computed_tokens

    def finish(self) -> None:
        """See Engine."""

    def embed(self, batch: Texts) -> Embeddings:
        """See Engine."""
        return unit(self._backend.embed(as_batch(batch.rows)).embeddings)
