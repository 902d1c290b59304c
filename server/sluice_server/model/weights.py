"""Weights into a model: every one of them, or an error."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from sluice_server.errors import ModelLoadError

_PREFIX = "encoder."
# A pooler on top of the first token is no part of an embedding.
_UNUSED = ("pooler.",)


def load_weights(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, *, trust_remote_code: bool, allow_pickle: bool = False
) -> PreTrainedModel:
    """Loads the model of a folder.

    A contrastive checkpoint may hold each of its keys under one more `encoder.`; it is stripped only when
    that makes every key one of the model's own and leaves none missing. A plain BERT has keys such as
    `encoder.layer.0…` of its own, beside others, and loses nothing.

    Raises:
        ModelLoadError: A weight is missing, damaged or of another shape, or there are no safetensors.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call] # it would stand between the log's lines
    try:
        return _load(folder, config, dtype, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    except SafetensorError as error:
        raise ModelLoadError(f"a .safetensors in {folder} is damaged or cut short: {error}") from error
    except RuntimeError as error:
        raise ModelLoadError(f"the weights in {folder} do not fit config.json: {error}") from error


def _load(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, *, trust_remote_code: bool, allow_pickle: bool
) -> PreTrainedModel:
    files = sorted(folder.glob("*.safetensors"))
    if not files and not allow_pickle:
        raise ModelLoadError(
            f"no .safetensors in {folder}; expected the weights in that format (a pickle could run code), "
            "or ALLOW_PICKLE=true"
        )
    stripped = _stripped(files, config, trust_remote_code=trust_remote_code) if files else None
    model: PreTrainedModel
    if stripped is not None:
        model = _empty(config, dtype=dtype, trust_remote_code=trust_remote_code)
        missing = model.load_state_dict(stripped, strict=False).missing_keys
    else:
        model, said = AutoModel.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=bool(files), output_loading_info=True,
            trust_remote_code=trust_remote_code, local_files_only=True,
        )  # fmt: skip
        missing = said["missing_keys"]
    needed = sorted(key for key in missing if not key.startswith(_UNUSED))
    if needed:
        shown = ", ".join(needed[:3]) + (f" and {len(needed) - 3} more" if len(needed) > 3 else "")  # noqa: PLR2004
        raise ModelLoadError(f"{folder} lacks weights of {type(model).__name__}: {shown}")
    model.train(mode=False)
    return model


def _empty(config: PreTrainedConfig, *, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """The architecture with whatever weights it starts with."""
    model: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
        config, dtype=dtype, trust_remote_code=trust_remote_code
    )
    return model


def _stripped(files: list[Path], config: PreTrainedConfig, *, trust_remote_code: bool) -> dict[str, Any] | None:
    """The state without its extra prefix; None where it has none."""
    # Only the names are read: nearly every checkpoint ends here, and its tensors are read by transformers.
    if not all(key.startswith(_PREFIX) for file in files for key in _keys(file)):
        return None
    state = {key: value for file in files for key, value in load_file(file).items()}
    with torch.device("meta"):
        own = set(_empty(config, dtype=torch.float32, trust_remote_code=trust_remote_code).state_dict())
    stripped = {key.removeprefix(_PREFIX): value for key, value in state.items()}
    needed = {key for key in own if not key.startswith(_UNUSED)}
    return stripped if needed <= set(stripped) <= own else None


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())
