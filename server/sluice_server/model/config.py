"""What is asked of a model, and what loading one gives."""

from dataclasses import dataclass

from sluice_server.backend import Backend
from sluice_server.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The settings that concern the model; their meanings stand in settings.py."""

    uri: str
    revision: str | None = None
    cache_dir: str = "/tmp/model_cache"  # noqa: S108
    device: str = "auto"
    dtype: str = "auto"
    layout: str = "auto"
    pooling: str = "auto"
    exclude_tokens: tuple[str, ...] = ()
    exclude_special_tokens: bool = False
    max_input_tokens: int | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    compile: bool = False
    compile_padded: bool = False
    quantization: str = "none"
    max_batch_rows: int = 512
    max_batch_tokens: int = 32768


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to be warmed up, and the tokenizer that belongs to it."""

    backend: Backend
    tokenizer: TextTokenizer
