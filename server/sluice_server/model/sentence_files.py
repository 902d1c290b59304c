"""What sentence-transformers writes beside a model: pooling, length, prompts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluice_server.errors import ModelLoadError

_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
# transformers writes 10^30 where a tokenizer knows no length.
_NO_LENGTH = 1 << 31
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
# Older versions named the file by the family; the first that says anything counts.
_FAMILIES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# sentence-transformers knows these without a file, as empty ones.
_ALWAYS_KNOWN = ("query", "document")


@dataclass(frozen=True, slots=True)
class SentenceFiles:
    """What the files say.

    Attributes:
        pooling: mean, cls or last; mean where the files do not say.
        max_seq_length: Where texts are truncated, special tokens included; None where they do not say.
        lowercase: Texts are lower-cased before tokenizing.
        prompts: By name.
        default_prompt_name: Of the one that goes before texts for which none is named; None where none does.
    """

    pooling: str = "mean"
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


def read(folder: Path) -> SentenceFiles:
    """Reads what is there; a plain transformers model has none of it.

    Raises:
        ModelLoadError: A pooling mode or a module that is not served, or a default prompt that is none of the prompts.
    """
    for module in _json(folder / "modules.json", []):
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _KNOWN_MODULES:
            raise ModelLoadError(f"modules.json names a {kind} layer; expected only {', '.join(_KNOWN_MODULES)}")
    files = (_json(folder / f"sentence_{family}_config.json", {}) for family in _FAMILIES)
    sentence: Mapping[str, Any] = next(filter(None, files), {})
    pooling = _json(folder / "1_Pooling" / "config.json", {})
    described = _json(folder / "config_sentence_transformers.json", {})
    prompts = {name: text or "" for name, text in (described.get("prompts") or {}).items()}
    default = described.get("default_prompt_name")
    if default is not None and default not in (*prompts, *_ALWAYS_KNOWN):
        known = ", ".join(sorted(prompts)) or "none, as there are no prompts"
        raise ModelLoadError(
            f"config_sentence_transformers.json: default_prompt_name is {default!r}; expected one of: {known}"
        )
    if pooling.get("include_prompt") is False and any(prompts.values()):
        raise ModelLoadError(
            "1_Pooling/config.json: include_prompt is false, but prompts are never left out of pooling; expected true, "
            "or a model without prompts"
        )
    return SentenceFiles(
        pooling=_pooling(pooling),
        max_seq_length=_max_seq_length(sentence, _json(folder / "tokenizer_config.json", {})),
        lowercase=bool(sentence.get("do_lower_case")),
        prompts=prompts,
        default_prompt_name=default if default in prompts else None,
    )


def _max_seq_length(sentence: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int | None:
    """By sentence-transformers' own order; what it writes today leaves the length to the tokenizer's file."""
    processing = sentence.get("processing_kwargs") or {}
    given = (
        (processing.get("text") or {}).get("max_length"),
        (processing.get("common") or {}).get("max_length"),
        (sentence.get("tokenizer_args") or sentence.get("processor_kwargs") or {}).get("model_max_length"),
        sentence.get("max_seq_length"),
        tokenizer.get("model_max_length", tokenizer.get("max_len")),
    )
    said = next((length for length in given if length is not None), None)
    return int(said) if said is not None and said < _NO_LENGTH else None


def _pooling(config: Mapping[str, Any]) -> str:
    if "pooling_mode" in config:
        chosen = [str(config["pooling_mode"]).removesuffix("token")]
    else:
        chosen = [
            _POOLINGS.get(name, name) for name, on in config.items() if name.startswith("pooling_mode") and on is True
        ]
    if not chosen:
        return "mean"
    if len(chosen) > 1 or chosen[0] not in _POOLINGS.values():
        raise ModelLoadError(f"1_Pooling/config.json asks for {', '.join(chosen)}; expected one of mean, cls, last")
    return chosen[0]


def _json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default
