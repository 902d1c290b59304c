"""From a model that computes to one that computes faster: looks for the compiled one, has it made, swaps it in.

A server never waits for it: pods have to be ready while a queue is growing. What cannot be compiled is served as it
is, and the log says why.
"""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict

import torch

from sluice_server.model import cpp
from sluice_server.model.compiled import artifact, library, memory
from sluice_server.model.compiled.artifact import Artifact, Recipe
from sluice_server.model.packed import Forward
from sluice_server.threads import yield_cores

logger = logging.getLogger(__name__)

_JOB_SECONDS = 1800
_LOWEST_PRIORITY = 19


def load(found: Artifact) -> Forward:
    """A compiled model's forward.

    Raises:
        RuntimeError: torch cannot load it.
        OSError: It cannot be read.
    """
    library.load(found.library)
    handle = torch.ops.sluice_native.load_forward(str(found.package))

    def forward(ids: torch.Tensor, positions: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = torch.ops.sluice_native.forward(ids, positions, cu_seqlens, handle)
        return states

    return forward


def begin(recipe: Recipe, cache_dir: str, adopt: Callable[[Forward], str | None]) -> None:
    """Swaps in what the cache holds, at once; else has it made in the background, and swaps it in then.

    Args:
        recipe: Of the model that is served.
        cache_dir: Where compiled models are kept.
        adopt: Takes the forward over, or says why not.
    """
    try:
        wanted = artifact.locate(recipe, cache_dir)
    except OSError:
        logger.exception("the model stays uncompiled: its files cannot be read")
        return
    if wanted.exists:
        _adopt(wanted, adopt)
        return
    obstacle = _obstacle()
    if obstacle is not None:
        logger.warning("the model stays uncompiled: %s", obstacle)
        return
    job = (recipe, cache_dir, wanted, adopt)
    threading.Thread(target=_make, args=job, name="compile", daemon=True).start()


def _obstacle() -> str | None:
    if cpp.compiler() is None:
        return "no g++ on the PATH"
    return memory.shortage(memory.NEEDED_BYTES, "compiling")


def _make(recipe: Recipe, cache_dir: str, wanted: Artifact, adopt: Callable[[Forward], str | None]) -> None:
    # The rehearsal of every size, too, shares its cores with a server that serves.
    yield_cores(_LOWEST_PRIORITY)
    logger.info("compiling the model for this CPU in the background, into %s", wanted.folder)
    command = [sys.executable, "-m", "sluice_server.model.compiled.job", json.dumps(asdict(recipe)), cache_dir]
    try:
        said = _run(command)
        if wanted.exists:
            _adopt(wanted, adopt)
        else:
            logger.warning("the model stays uncompiled: %s", said[-2000:].strip() or "the compiler was stopped")
    except Exception:
        logger.exception("the model stays uncompiled")


def _run(command: list[str]) -> str:
    """What the job said. It ends when its stdin closes, and so with this process, however that ends."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        timer = threading.Timer(_JOB_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            # Not communicate(), which would close stdin.
            return process.stderr.read()
        finally:
            timer.cancel()
            process.kill()


def _adopt(found: Artifact, adopt: Callable[[Forward], str | None]) -> None:
    try:
        refusal = adopt(load(found))
    except (RuntimeError, OSError) as error:
        refusal = str(error)
    if refusal is None:
        logger.info("serving the compiled model of %s", found.folder)
    else:
        logger.warning("the model stays uncompiled: %s", refusal)
