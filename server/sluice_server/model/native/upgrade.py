"""From the loaded model to the engine: taken from the cache at once, else built in the background within seconds."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sluice_server.model import cpp
from sluice_server.model.compiled import memory
from sluice_server.model.native import architecture, library
from sluice_server.model.native.encoder import NativeEncoder

logger = logging.getLogger(__name__)

# What g++ took at its peak: 270 MiB.
_NEEDED_BYTES = 3 << 27
# For what is served meanwhile, and the copy of a layer in float32 that is packed next.
_KEPT_FREE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Attempt:
    """A precision to try.

    Attributes:
        dtype: Of what is multiplied: the model's own, or int8.
        adopt: Takes the forward over, or says why not.
    """

    dtype: torch.dtype
    adopt: Callable[[NativeEncoder], str | None]


def begin(
    model: PreTrainedModel,
    first_position: int,
    cache_dir: str,
    attempts: Sequence[Attempt],
    otherwise: Callable[[], None],
) -> None:
    """Swaps the engine in, now or in a few seconds; what it does not compute goes the other way.

    Args:
        model: That is served.
        first_position: Of a row.
        cache_dir: Where the library is kept.
        attempts: In this order, until one is taken over.
        otherwise: Called where none is, in this thread or in the one that built it.
    """
    try:
        usable = [attempt for attempt in attempts if not _has_tiles(attempt.dtype)]
        if not usable:
            raise architecture.UnknownArchitectureError("this CPU multiplies bfloat16 in tiles (AMX)")
        found, path = architecture.read(model, first_position), library.locate(cache_dir)
    except (architecture.UnknownArchitectureError, OSError) as reason:
        _say_unused(attempts, str(reason))
        otherwise()
        return
    job = (found, path, usable, otherwise)
    if path.exists():
        _adopt(*job)
    else:
        threading.Thread(target=_build, args=job, name="build", daemon=True).start()


def _has_tiles(dtype: torch.dtype) -> bool:
    """Where oneDNN has an instruction that the engine has not."""
    return dtype == torch.bfloat16 and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _say_unused(attempts: Sequence[Attempt], reason: str) -> None:
    """A warning only where somebody asked for what is not done."""
    asked = any(attempt.dtype == torch.int8 for attempt in attempts)
    logger.log(
        logging.WARNING if asked else logging.INFO,
        "Sluice's own CPU engine is not used%s: %s",
        ", and so no int8" if asked else "",
        reason,
    )


def _build(
    model: architecture.Architecture, path: Path, attempts: Sequence[Attempt], otherwise: Callable[[], None]
) -> None:
    logger.info("building Sluice's CPU engine in the background, into %s", path)
    try:
        shortage = memory.shortage(_NEEDED_BYTES, "g++")
        if shortage is not None:
            raise cpp.BuildError(shortage)
        library.build(path)
    except (cpp.BuildError, OSError) as error:
        logger.warning("Sluice's own CPU engine is not used: %s", error)
        otherwise()
        return
    _adopt(model, path, attempts, otherwise)


def _adopt(
    model: architecture.Architecture, path: Path, attempts: Sequence[Attempt], otherwise: Callable[[], None]
) -> None:
    for attempt in attempts:
        name = str(attempt.dtype).removeprefix("torch.")
        try:
            # Not kept here: of two attempts the first one's weights must be gone before the second.
            refusal = attempt.adopt(
                NativeEncoder(library.load(path), model, torch.get_num_threads(), attempt.dtype, _room_bytes())
            )
        except (RuntimeError, OSError, AttributeError) as error:
            refusal = str(error)
        if refusal is None:
            logger.info("serving with Sluice's CPU engine in %s, of %s", name, path)
            return
        logger.warning("Sluice's own CPU engine is not used in %s: %s", name, refusal)
    otherwise()


def _room_bytes() -> int | None:
    """That weights may take, at most."""
    free = memory.free_bytes()
    return None if free is None else max(0, free - _KEPT_FREE_BYTES)
