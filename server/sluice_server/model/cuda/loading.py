"""A packed model on a GPU, or why not: what the GPU computes is compared with float32 on the fixed texts first."""

import logging
import time

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sluice_server.backend import Batch, ModelInfo
from sluice_server.model.cuda import compiling, fp8
from sluice_server.model.cuda.backend import GraphBackend, Limits, ModelParts
from sluice_server.model.cuda.streams import CudaQueue, DeviceQueue
from sluice_server.model.execution import FAITHFUL_COSINE
from sluice_server.model.similarity import lowest_cosine

logger = logging.getLogger(__name__)


def packed_backend(
    model: PreTrainedModel,
    info: ModelInfo,
    parts: ModelParts,
    limits: Limits,
    probe: Batch,
    exact: NDArray[np.float32],
    queue: DeviceQueue | None = None,
) -> GraphBackend | None:
    """The backend, if its embeddings come near to float32's; None, and the log says why, where they do not.

    Args:
        model: On the device, in its precision.
        info: What is served.
        parts: What inputs and outputs are made with.
        limits: The largest batch.
        probe: The fixed texts.
        exact: Their embeddings in float32.
        queue: Of the device; by default a stream of this thread's GPU.
    """
    try:
        backend = GraphBackend(model, info, parts, limits, queue or CudaQueue())
        cosine = lowest_cosine(backend.embed(probe).embeddings, exact)
    # Triton compiles our kernel now, and raises what a missing compiler or header raises.
    except Exception as error:  # noqa: BLE001 - the log says it, and the padded layout needs no kernel of ours
        logger.warning("the GPU does not take packed rows: %s", error)
        return None
    # Negated, so that NaN is a difference too.
    if not cosine >= FAITHFUL_COSINE:
        logger.warning("packed rows differ from float32's on the GPU: cosine %.4f", cosine)
        return None
    return backend


def serve_fp8(model: PreTrainedModel, backend: GraphBackend, probe: Batch, exact: NDArray[np.float32]) -> None:
    """Has the model multiply in fp8 from now on, if its embeddings stay near float32's; before the warm-up.

    Args:
        model: Of the backend.
        backend: Without graphs yet.
        probe: The fixed texts.
        exact: Their embeddings in float32.
    """
    undo = fp8.quantize(model)
    if model.device.type == "cuda":
        # Weights are rounded on another stream than the backend's.
        torch.cuda.synchronize()
    refusal = _refusal(backend, probe, exact)
    if refusal is None:
        backend.precision = "fp8"
        logger.info("the model multiplies in fp8")
    else:
        undo()
        logger.warning("QUANTIZATION=fp8 is not used: %s", refusal)


def compile_model(model: PreTrainedModel, backend: GraphBackend, probe: Batch, exact: NDArray[np.float32]) -> None:
    """Has the model's layers compiled, if its embeddings stay near float32's; before the warm-up.

    Args:
        model: Of the backend.
        backend: Without graphs yet.
        probe: The fixed texts.
        exact: Their embeddings in float32.
    """
    began = time.perf_counter()
    undo = compiling.compile_layers(model)
    refusal = _refusal(backend, probe, exact)
    if refusal is None:
        backend.is_compiled = True
        logger.info("the model is compiled, in %.0f s", time.perf_counter() - began)
    else:
        undo()
        logger.warning("the model stays uncompiled: %s", refusal)


def _refusal(backend: GraphBackend, probe: Batch, exact: NDArray[np.float32]) -> str | None:
    """Why what the backend now computes cannot be served; None where it can."""
    try:
        cosine = lowest_cosine(backend.embed(probe).embeddings, exact)
    # Compilers raise errors of many kinds, for want of a C compiler, say.
    except Exception as error:  # noqa: BLE001 - the log says it
        return f"{type(error).__name__}: {error}"
    return None if cosine >= FAITHFUL_COSINE else f"embeddings differ from float32's (cosine {cosine:.4f})"
