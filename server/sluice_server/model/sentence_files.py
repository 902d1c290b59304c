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
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True)
class SentenceFiles:
    """What the files say.

    Attributes:
        pooling: mean, cls or last; mean where the files do not say.
        max_seq_length: None where they do not say.
        lowercase: Texts are lower-cased before tokenizing.
        prompts: By name.
    """

    pooling: str = "mean"
    max_seq_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)


def read(folder: Path) -> SentenceFiles:
    """Reads what is there; a plain transformers model has none of it.

    Raises:
        ModelLoadError: A pooling mode or a module that is not served.
    """
    for module in _json(folder / "modules.json", []):
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _KNOWN_MODULES:
            raise ModelLoadError(f"modules.json names a {kind} layer; expected only {', '.join(_KNOWN_MODULES)}")
    sentence = _json(folder / "sentence_bert_config.json", {})
    return SentenceFiles(
        pooling=_pooling(_json(folder / "1_Pooling" / "config.json", {})),
        max_seq_length=sentence.get("max_seq_length"),
        lowercase=bool(sentence.get("do_lower_case")),
        prompts=_json(folder / "config_sentence_transformers.json", {}).get("prompts") or {},
    )


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
