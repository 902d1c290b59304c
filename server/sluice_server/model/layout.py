"""Which layout serves a model: packed where it gives what the padded layout gives, shown on fixed rows at load.

Both are compared in float32, so that the choice depends on the model alone and not on the noise of a precision.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sluice_server.backend import Backend, Batch
from sluice_server.errors import ModelLoadError
from sluice_server.model.similarity import lowest_cosine

logger = logging.getLogger(__name__)

# Below this cosine the two layouts do not compute the same thing; float32 noise is a thousand times smaller.
_SAME_COSINE = 0.9999
# Longer than the windows of the usual sliding attention (64 to either side), where a wrong one would show.
_LONG_ROW_TOKENS = 300
_POSITION_PROBE_TOKENS = 8


def choose(
    wanted: str, device: str, dtype: str, probe_rows: Sequence[NDArray[np.int32]], in_layout: Callable[[str], Backend]
) -> str:
    """`packed` or `padded`; `auto` is packed wherever the device and the model allow it.

    Args:
        wanted: auto, packed or padded.
        device: That will serve.
        dtype: That will serve; a GPU's kernels for packed rows take no float32.
        probe_rows: Token ids of the fixed texts.
        in_layout: The model in float32, in a layout.

    Raises:
        ModelLoadError: packed is asked for, and cannot be had.
    """
    if wanted == "padded":
        return "padded"
    if device == "cuda" and dtype == "float32":
        reason: str | None = "a GPU's attention over packed rows takes bfloat16 or float16, not float32"
    else:
        reason = _difference(in_layout, [*probe_rows, _long_row(probe_rows, in_layout("padded"))])
    if reason is None:
        return "packed"
    if wanted == "packed":
        raise ModelLoadError(f"LAYOUT=packed: {reason}; expected padded, or auto")
    logger.info("serving the padded layout: %s", reason)
    return "padded"


def first_position(model: PreTrainedModel) -> int:
    """The position of a row's first token: 0, or one behind the padding's in RoBERTa's family.

    Both layouts are told their positions, so they cannot check each other's; here the model's own choice decides.

    Raises:
        ModelLoadError: The model's own positions are neither, or it cannot be told any.
    """
    padding = int(getattr(model.config, "pad_token_id", None) or 0)
    # No padding among them: RoBERTa gives it no position of its own.
    ids = torch.tensor([[one for one in range(_POSITION_PROBE_TOKENS + 1) if one != padding][:_POSITION_PROBE_TOKENS]])
    places = torch.arange(_POSITION_PROBE_TOKENS)[None]
    try:
        with torch.inference_mode():
            own = model(input_ids=ids).last_hidden_state
            for start in (0, padding + 1):
                told = model(input_ids=ids, position_ids=places + start).last_hidden_state
                if torch.allclose(own, told, atol=1e-4):
                    return start
    except (TypeError, IndexError) as error:
        raise ModelLoadError(f"{type(model).__name__} cannot be told positions: {error}") from error
    raise ModelLoadError(f"{type(model).__name__} starts its positions neither at 0 nor behind its padding")


def embed_rows(backend: Backend, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Embeddings (rows, dimension) of rows of token ids, as one batch."""
    return backend.embed(as_batch(rows)).embeddings


def as_batch(rows: Sequence[NDArray[np.int32]]) -> Batch:
    """Rows of token ids as one batch."""
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    return Batch(np.concatenate(rows), lengths, int(lengths.max()), len(lengths))


def _difference(in_layout: Callable[[str], Backend], rows: Sequence[NDArray[np.int32]]) -> str | None:
    """Why the packed layout cannot serve; None where it can. Rows that saw their neighbours differ."""
    expected = embed_rows(in_layout("padded"), rows)
    try:
        packed = embed_rows(in_layout("packed"), rows)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"the model does not take packed rows: {error}"
    cosine = lowest_cosine(expected, packed)
    # Negated, so that NaN is a difference too.
    return None if cosine >= _SAME_COSINE else f"packed rows differ from padded ones (cosine {cosine:.4f})"


def _long_row(probe_rows: Sequence[NDArray[np.int32]], backend: Backend) -> NDArray[np.int32]:
    ids = np.concatenate(probe_rows)
    return np.resize(ids, min(_LONG_ROW_TOKENS, backend.info.max_position_tokens)).astype(np.int32)
