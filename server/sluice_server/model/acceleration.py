"""Faster code for a packed model on a CPU: an engine of our own, else what torch compiles. Nobody waits for it."""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sluice_server.backend import Batch
from sluice_server.model import attention
from sluice_server.model.compiled import upgrade
from sluice_server.model.compiled.artifact import Recipe
from sluice_server.model.config import ModelConfig
from sluice_server.model.execution import TorchBackend
from sluice_server.model.native import upgrade as native

logger = logging.getLogger(__name__)


def begin(
    config: ModelConfig,
    folder: Path,
    model: PreTrainedModel,
    served: TorchBackend,
    probe: Batch,
    exact: NDArray[np.float32],
) -> None:
    """Has a backend take up the fastest code that computes its model: at once what the cache holds, the rest later.

    Args:
        config: What is asked for.
        folder: Of the model's files.
        model: Of the backend, in its precision.
        served: Packed, on the CPU.
        probe: The fixed texts.
        exact: Their embeddings in float32.
    """
    attempts = [native.Attempt(model.dtype, lambda sums: served.adopt(sums, probe, "native"))]
    if config.quantization == "int8":
        to_int8 = native.Attempt(torch.int8, lambda sums: served.adopt(sums, probe, "native-int8", exact))
        attempts.insert(0, to_int8)
    native.begin(
        model,
        served.first_position,
        config.cache_dir,
        attempts,
        lambda: _compile(config, folder, model, served, probe),
    )


def _compile(config: ModelConfig, folder: Path, model: PreTrainedModel, served: TorchBackend, probe: Batch) -> None:
    if not attention.takes_packed(model):
        logger.info("the model stays uncompiled: %s has an attention of its own", type(model).__name__)
        return
    recipe = Recipe(
        folder=str(folder.resolve()),
        dtype=served.info.dtype,
        threads=torch.get_num_threads(),
        trust_remote_code=config.trust_remote_code,
        allow_pickle=config.allow_pickle,
    )
    upgrade.begin(recipe, config.cache_dir, lambda forward: served.adopt_compiled(forward, probe))
