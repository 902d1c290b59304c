"""The GPU's path on the CPU: the same code, without graphs."""

from pathlib import Path

import torch
from sluice_server.backend import ModelInfo
from sluice_server.model.cuda.backend import GraphBackend, Limits, ModelParts
from sluice_server.model.cuda.streams import CudaQueue, DeviceQueue, HostQueue
from sluice_server.model.layout import first_position
from sluice_server.model.pooling import Pooling
from sluice_server.model.precision import DTYPES
from sluice_server.model.weights import load_weights
from transformers import AutoConfig, PreTrainedModel

from tests.server.model.conftest import VOCAB_SIZE

PACKED = ("bert", "distilbert", "modernbert", "roberta")
POSITIONS = 160
LIMITS = Limits(tokens=1000, rows=16)
PAD_ID = 1


def tiny_model(folder: Path, dtype: str = "float32") -> PreTrainedModel:
    return load_weights(folder, AutoConfig.from_pretrained(folder), DTYPES[dtype], trust_remote_code=False)


def graph_backend(
    folder: Path,
    *,
    dtype: str = "float32",
    pooling: Pooling | None = None,
    limits: Limits = LIMITS,
    device: str = "cpu",
) -> GraphBackend:
    start = first_position(tiny_model(folder))
    model = tiny_model(folder, dtype)
    torch.nn.Module.to(model, device)
    chosen = pooling or Pooling("mean", (), VOCAB_SIZE)
    queue: DeviceQueue = CudaQueue() if device == "cuda" else HostQueue()
    return GraphBackend(
        model, tiny_info(dtype, chosen.kind, device), ModelParts(chosen, PAD_ID, start, "f"), limits, queue
    )


def tiny_info(dtype: str = "float32", pooling: str = "mean", device: str = "cpu") -> ModelInfo:
    return ModelInfo("m", None, 32, POSITIONS, POSITIONS, VOCAB_SIZE, dtype, device, "packed", pooling, {})
