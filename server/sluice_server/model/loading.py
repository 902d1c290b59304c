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
from sluice_server.model import acceleration, layout, precision, sentence_files, sources
from sluice_server.model.config import LoadedModel, ModelConfig
from sluice_server.model.cuda import fp8
from sluice_server.model.cuda.backend import GraphBackend, Limits, ModelParts
from sluice_server.model.cuda.compiling import keep_kernels
from sluice_server.model.cuda.loading import compile_model, packed_backend, serve_fp8
from sluice_server.model.execution import FAITHFUL_COSINE, TorchBackend
from sluice_server.model.fingerprint import PROBE_TEXTS, digest
from sluice_server.model.pooling import Pooling, excluded_token_ids
from sluice_server.model.sentence_files import SentenceFiles
from sluice_server.model.similarity import lowest_cosine
from sluice_server.model.weights import load_weights
from sluice_server.tokenizer import TextTokenizer, Truncation

logger = logging.getLogger(__name__)


def load_model(config: ModelConfig, report: Callable[[str, str], None]) -> LoadedModel:
    """Loads a model and its tokenizer, on the device, in the precision and layout that fit.

    Args:
        config: What is asked for.
        report: Told of each phase ("downloading", "loading") with a sentence.

    Raises:
        ModelLoadError: The text names what is missing and what is expected.
    """
    source = sources.fetch(
        config.uri,
        config.revision,
        config.cache_dir,
        report,
        allow_pickle=config.allow_pickle,
        trust_remote_code=config.trust_remote_code,
    )
    report("loading", f"{source.folder.name} into memory")
    try:
        return _load(config, source, report)
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(f"MODEL_PATH={config.uri}: {error}") from error


def _load(config: ModelConfig, source: sources.Source, report: Callable[[str, str], None]) -> LoadedModel:
    """The model as its files hold it first, in float32 on the CPU: what the fingerprint and the layout rest on."""
    device = precision.choose_device(config.device)
    dtype = precision.choose_dtype(config.dtype, device)
    files = sentence_files.read(source.folder)
    model_config = AutoConfig.from_pretrained(source.folder, trust_remote_code=config.trust_remote_code)
    if not getattr(model_config, "max_position_embeddings", None):
        raise ModelLoadError(f"{model_config.model_type} models have no table of positions; expected an encoder")
    raw_tokenizer = _raw_tokenizer(source.folder)

    def weights(dtype: str) -> PreTrainedModel:
        return load_weights(
            source.folder,
            model_config,
            precision.DTYPES[dtype],
            trust_remote_code=config.trust_remote_code,
            allow_pickle=config.allow_pickle,
        )

    model = weights("float32")
    first_position = layout.first_position(model)
    info = _info(config, source, files, model_config, device=device, dtype=dtype, first_position=first_position)
    tokenizer = TextTokenizer(raw_tokenizer, max_tokens=info.max_input_tokens, lowercase=files.lowercase)
    probe_rows = _probe_rows(tokenizer)

    pad_id = int(getattr(model.config, "pad_token_id", None) or 0)

    def backend(
        model: PreTrainedModel, info: ModelInfo, fingerprint: str = "", *, compile_padded: bool = False
    ) -> TorchBackend:
        return TorchBackend(
            model,
            info,
            _pooling(config, info, raw_tokenizer),
            pad_id=pad_id,
            first_position=first_position,
            fingerprint=fingerprint,
            compile_padded=compile_padded,
        )

    exact = dataclasses.replace(info, dtype="float32", device="cpu")
    chosen = layout.choose(
        config.layout,
        device,
        dtype,
        probe_rows,
        lambda name: backend(model, dataclasses.replace(exact, layout=name)),
    )
    expected = layout.embed_rows(backend(model, dataclasses.replace(exact, layout="padded")), probe_rows)
    if dtype != "float32":
        # Read anew rather than cast, as transformers keeps what must stay float32; never both in memory.
        del model
        model = weights(dtype)
    torch.nn.Module.to(model, device)
    if device == "cuda" and chosen == "packed":
        parts = ModelParts(_pooling(config, exact, raw_tokenizer), pad_id, first_position, digest(expected))
        keep_kernels(config.cache_dir)
        if config.compile:
            report("loading", f"{source.folder.name} compiled for this GPU")
        on_gpu = _packed_on_gpu(config, model, dataclasses.replace(info, layout=chosen), parts, probe_rows, expected)
        if on_gpu is not None:
            return LoadedModel(on_gpu, tokenizer)
        chosen = "padded"
    info = dataclasses.replace(info, layout=chosen)
    served = backend(model, info, digest(expected), compile_padded=config.compile_padded)
    _check_precision(served, expected, probe_rows)
    _say_unused(config, info)
    if config.compile and chosen == "packed" and device == "cpu":
        acceleration.begin(config, source.folder, model, served, layout.as_batch(probe_rows), expected)
    return LoadedModel(served, tokenizer)


def _packed_on_gpu(
    config: ModelConfig,
    model: PreTrainedModel,
    info: ModelInfo,
    parts: ModelParts,
    rows: list[NDArray[np.int32]],
    exact: NDArray[np.float32],
) -> GraphBackend | None:
    """The packed layout on the GPU; None where the GPU does not compute it as it should.

    Raises:
        ModelLoadError: It does not, and nothing else will do.
    """
    probe = layout.as_batch(rows)
    # The fixed texts, too, are one batch.
    limits = Limits(max(config.max_batch_tokens, probe.useful_tokens), max(config.max_batch_rows, len(rows)))
    served = packed_backend(model, info, parts, limits, probe, exact)
    if served is None:
        if config.layout == "packed":
            raise ModelLoadError("LAYOUT=packed: the GPU does not compute it as float32 does; expected padded, or auto")
        return None
    _say_unused(config, info)
    if config.quantization == "fp8" and fp8.obstacle(info) is None:
        serve_fp8(model, served, probe, exact)
    if config.compile:
        compile_model(model, served, probe, exact)
    return served


def _say_unused(config: ModelConfig, info: ModelInfo) -> None:
    """A warning for each thing that was asked for and that this device or layout does not do."""
    if config.quantization == "int8" and not (config.compile and info.layout == "packed" and info.device == "cpu"):
        logger.warning("QUANTIZATION=int8 is not used: it needs COMPILE=auto, the packed layout and a CPU")
    if config.quantization == "fp8" and (obstacle := fp8.obstacle(info)) is not None:
        logger.warning("QUANTIZATION=fp8 is not used: %s", obstacle)
    if config.compile_padded and info.layout != "padded":
        logger.warning("COMPILE=reduce-overhead is not used: it compiles the padded layout (LAYOUT=padded)")


def _check_precision(served: TorchBackend, expected: NDArray[np.float32], rows: list[NDArray[np.int32]]) -> None:
    cosine = lowest_cosine(layout.embed_rows(served, rows), expected)
    if not np.isfinite(cosine):
        raise ModelLoadError(f"DTYPE={served.info.dtype}: embeddings are not finite; expected float32, or auto")
    if cosine < FAITHFUL_COSINE:
        logger.warning("%s is far from float32 for this model: cosine %.3f", served.info.dtype, cosine)


def _pooling(config: ModelConfig, info: ModelInfo, raw_tokenizer: Tokenizer) -> Pooling:
    special = _special_ids(raw_tokenizer) if config.exclude_special_tokens else ()
    excluded = excluded_token_ids(raw_tokenizer.get_vocab(), config.exclude_tokens, special)
    return Pooling(info.pooling, excluded, info.vocab_size)


def _raw_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer's own file, or one converted from an older format."""
    path = folder / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    loaded: Any = AutoTokenizer.from_pretrained(folder, use_fast=True)
    tokenizer: Tokenizer = loaded.backend_tokenizer
    # Without any vocabulary file, transformers makes an empty tokenizer without a word.
    if len(loaded) <= len(loaded.all_special_tokens):
        raise ModelLoadError(f"no tokenizer in {folder}; expected tokenizer.json, or a vocabulary beside config.json")
    return tokenizer


def _info(
    config: ModelConfig,
    source: sources.Source,
    files: SentenceFiles,
    model_config: PreTrainedConfig,
    *,
    device: str,
    dtype: str,
    first_position: int,
) -> ModelInfo:
    positions = int(model_config.max_position_embeddings) - first_position
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
        default_prompt_name=files.default_prompt_name,
    )


def _probe_rows(tokenizer: TextTokenizer) -> list[NDArray[np.int32]]:
    encoded = tokenizer.encode(PROBE_TEXTS, prompt=None, truncate=Truncation.END)
    return np.split(encoded.token_ids, np.cumsum(encoded.lengths)[:-1])


def _special_ids(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer puts around every text."""
    return list(tokenizer.encode("").ids)
