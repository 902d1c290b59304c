"""From settings to a model that can be warmed up, step by step."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from sluice_server.backend import ModelInfo
from sluice_server.errors import ModelLoadError
from sluice_server.model import attention, precision, sentence_files, sources
from sluice_server.model.config import LoadedModel, ModelConfig
from sluice_server.model.execution import TorchBackend
from sluice_server.model.fingerprint import PROBE_TEXTS
from sluice_server.model.pooling import Pooling, excluded_token_ids
from sluice_server.model.sentence_files import SentenceFiles
from sluice_server.model.weights import load_weights
from sluice_server.tokenizer import TextTokenizer, Truncation

logger = logging.getLogger(__name__)

# Below this cosine the two layouts do not compute the same thing.
_SAME_LAYOUT_COSINE = 0.999
# Their positions start behind the padding token's own.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "data2vec-text")


def load_model(config: ModelConfig, report: Callable[[str, str], None]) -> LoadedModel:
    """Loads a model and its tokenizer, on the device, in the precision and layout that fit.

    Args:
        config: What is asked for.
        report: Told of each phase ("downloading", "loading") with a sentence.

    Raises:
        ModelLoadError: The text names what is missing and what is expected.
    """
    source = sources.fetch(config.uri, config.revision, config.cache_dir, report)
    report("loading", f"{source.folder.name} into memory")
    device = precision.choose_device(config.device)
    dtype = precision.choose_dtype(config.dtype, device)
    try:
        files = sentence_files.read(source.folder)
        model_config = AutoConfig.from_pretrained(source.folder, trust_remote_code=config.trust_remote_code)
        model = load_weights(
            source.folder, model_config, precision.DTYPES[dtype], trust_remote_code=config.trust_remote_code
        )
        torch.nn.Module.to(model, device)
        raw_tokenizer = _raw_tokenizer(source.folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(f"MODEL_PATH={config.uri}: {error}") from error
    info = _info(config, source, files, model_config, device=device, dtype=dtype)
    tokenizer = TextTokenizer(raw_tokenizer, max_tokens=info.max_input_tokens, lowercase=files.lowercase)
    backend = _backend(config, info, model, tokenizer, raw_tokenizer)
    return LoadedModel(backend, tokenizer)


def _raw_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer's own file, or one converted from an older format."""
    path = folder / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    loaded: Any = AutoTokenizer.from_pretrained(folder, use_fast=True)
    tokenizer: Tokenizer = loaded.backend_tokenizer
    return tokenizer


def _info(
    config: ModelConfig,
    source: sources.Source,
    files: SentenceFiles,
    model_config: PreTrainedConfig,
    *,
    device: str,
    dtype: str,
) -> ModelInfo:
    positions = int(model_config.max_position_embeddings) - _first_position(model_config)
    wanted = config.max_input_tokens or files.max_seq_length or positions
    if config.max_input_tokens and config.max_input_tokens > positions:
        raise ModelLoadError(f"MAX_INPUT_TOKENS={config.max_input_tokens}: the model's positions end at {positions}")
    return ModelInfo(
        uri=config.uri,
        revision=source.revision,
        dimension=int(model_config.hidden_size),
        max_input_tokens=min(wanted, positions),
        max_position_tokens=positions,
        vocab_size=int(model_config.vocab_size),
        dtype=dtype,
        device=device,
        layout=config.layout,
        pooling=files.pooling if config.pooling == "auto" else config.pooling,
        prompts=dict(files.prompts),
    )


def _backend(
    config: ModelConfig,
    info: ModelInfo,
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    raw_tokenizer: Tokenizer,
) -> TorchBackend:
    """In the layout that was asked for; `auto` takes packed where both layouts agree on the probes."""
    special = _special_ids(raw_tokenizer) if config.exclude_special_tokens else ()
    excluded = excluded_token_ids(raw_tokenizer.get_vocab(), config.exclude_tokens, special)
    pooling = Pooling(info.pooling, excluded, info.vocab_size)
    pooling.to(info.device)
    probe_rows = _probe_rows(tokenizer)

    def in_layout(layout: str) -> TorchBackend:
        return TorchBackend(
            model,
            _with_layout(info, layout),
            pooling,
            pad_id=int(getattr(model.config, "pad_token_id", None) or 0),
            first_position=_first_position(model.config),
            probe_rows=probe_rows,
        )

    if config.layout == "padded" or (config.layout == "auto" and info.device != "cpu"):
        return in_layout("padded")
    attention.register()
    reason = _packed_differs(in_layout)
    if reason is None:
        return in_layout("packed")
    if config.layout == "packed":
        raise ModelLoadError(f"LAYOUT=packed: {reason}; expected padded, or auto")
    logger.info("serving the padded layout: %s", reason)
    return in_layout("padded")


def _packed_differs(in_layout: Callable[[str], TorchBackend]) -> str | None:
    """Why the packed layout cannot serve this model; None where it can. Rows that saw their neighbours differ."""
    expected = in_layout("padded").probe()
    try:
        packed = in_layout("packed").probe()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"the model does not take packed rows: {error}"
    cosines = np.sum(_unit(expected) * _unit(packed), axis=1)
    if cosines.min() < _SAME_LAYOUT_COSINE:
        return f"packed rows differ from padded ones (cosine {cosines.min():.4f})"
    return None


def _with_layout(info: ModelInfo, layout: str) -> ModelInfo:
    return dataclasses.replace(info, layout=layout)


def _probe_rows(tokenizer: TextTokenizer) -> list[NDArray[np.int32]]:
    encoded = tokenizer.encode(PROBE_TEXTS, prompt=None, truncate=Truncation.END)
    return np.split(encoded.token_ids, np.cumsum(encoded.lengths)[:-1])


def _special_ids(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer puts around every text."""
    return list(tokenizer.encode("").ids)


def _first_position(config: PreTrainedConfig) -> int:
    return int(config.pad_token_id) + 1 if config.model_type in _OFFSET_POSITIONS else 0


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
