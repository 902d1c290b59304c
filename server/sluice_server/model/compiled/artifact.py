"""Where a compiled model is kept, and under which key: it holds the weights and the CPU's own instructions."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from sluice_server.model import cpp
from sluice_server.model.compiled import library

_WEIGHTS = ("*.safetensors", "*.bin", "*.py")
# Raise it when the job makes something else of the same sources.
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a compiled model is made from.

    Attributes:
        folder: Holds config.json and the weights.
        dtype: float32 or bfloat16.
        threads: OpenMP's; the number stands in the compiled code.
    """

    folder: str
    dtype: str
    threads: int
    trust_remote_code: bool
    allow_pickle: bool


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder with the operators' library and the compiled model; it exists whole or not at all."""

    folder: Path

    @property
    def library(self) -> Path:
        """Operators that the model calls."""
        return self.folder / "operators.so"

    @property
    def package(self) -> Path:
        """The model."""
        return self.folder / "forward.pt2"

    @property
    def exists(self) -> bool:
        """Whether it has been published."""
        return self.folder.is_dir()


def locate(recipe: Recipe, cache_dir: str) -> Artifact:
    """The artifact of a recipe on this machine.

    Raises:
        OSError: The model's files cannot be read.
    """
    return Artifact(Path(cache_dir) / "compiled" / key(recipe))


def key(recipe: Recipe) -> str:
    """Changes with the weights, the code that compiles them, and the CPU."""
    digest = hashlib.sha256()
    facts = {name: value for name, value in asdict(recipe).items() if name != "folder"}
    said = [_FORMAT, facts, cpp.cpu(), torch.__version__, transformers.__version__, library.source_text()]
    digest.update(json.dumps(said, sort_keys=True).encode())
    folder = Path(recipe.folder)
    for path in sorted({folder / "config.json", *(file for kind in _WEIGHTS for file in folder.glob(kind))}):
        with path.open("rb") as opened:
            digest.update(path.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:32]


def publish(made: Path, artifact: Artifact) -> None:
    """Moves a finished folder into place in one rename; who comes second leaves the first one's.

    Raises:
        OSError: The cache cannot be written.
    """
    try:
        os.rename(made, artifact.folder)  # noqa: PTH104 - a folder onto a folder is an error here, and is meant to be
    except OSError:
        if not artifact.exists:
            raise
        shutil.rmtree(made)
