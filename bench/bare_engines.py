"""How each bare engine is started, and the exported model that some of them compute."""

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench import roster
from bench.peers import PeerUnavailableError
from bench.place import Place

_EXPORT_SECONDS = 600


def export(place: Place) -> Path:
    """The folder of the model as ONNX, made once.

    Raises:
        PeerUnavailableError: The environment for it is missing, or it cannot be made.
    """
    python = place.environment / "bin/python"
    digest = hashlib.sha256(place.environment.name.encode())
    with (place.model / "model.safetensors").open("rb") as weights:
        digest.update(hashlib.file_digest(weights, "sha256").digest())
    folder = place.cache / f"onnx-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    if not python.exists():
        raise PeerUnavailableError("its environment (dev/locks/peers.txt) is not installed")
    command = [str(python), "-m", "bench.engines.export", str(place.model), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_EXPORT_SECONDS, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1][:300]
        raise PeerUnavailableError(f"the model could not be exported: {said}")
    return folder


def commands(place: Place, exported: Path | None) -> Mapping[str, list[str]]:
    """What starts each, by name; without an exported model those that need it are left out."""

    def command(python: Path | str, engine: str, dtype: str, folder: Path) -> list[str]:
        module = [str(python), "-m", "bench.engines.worker", engine, dtype]
        return [*module, str(place.model), str(folder), str(place.threads)]

    found = {
        roster.COMPILED: command(sys.executable, "compiled", "auto", place.cache),
        roster.COMPILED_FLOAT32: command(sys.executable, "compiled", "float32", place.cache),
        roster.COMPILED_INT8: command(sys.executable, "compiled", "int8", place.cache),
        "packed engine, eager": command(sys.executable, "eager", "auto", place.cache),
        roster.REFERENCE: command(sys.executable, "sentence-transformers", "float32", place.cache),
        "sentence-transformers bfloat16": command(sys.executable, "sentence-transformers", "bfloat16", place.cache),
    }
    if exported is not None:
        python = place.environment / "bin/python"
        for name in roster.RUNTIMES:
            library, dtype = name.rsplit(" ", 1)
            found[name] = command(python, library.lower().replace(" ", ""), dtype, exported)
    return found
