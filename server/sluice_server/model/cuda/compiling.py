"""A model's layers compiled by Inductor: what lies between two multiplications becomes one kernel.

Layer by layer, as equal layers share their code: ModernBERT's 22 take 11 s, the whole model at once took 44 s and is
no faster.
"""

import os
from collections.abc import Callable
from pathlib import Path

from torch._inductor import config as inductor
from transformers import PreTrainedModel


def keep_kernels(cache_dir: str) -> None:
    """Keeps what is compiled for the GPU on the model's volume: the next start finds it there.

    Args:
        cache_dir: MODEL_CACHE_DIR; who set the compilers' own variables keeps them.
    """
    for variable, folder in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
        os.environ.setdefault(variable, str(Path(cache_dir) / folder))


def compile_layers(model: PreTrainedModel) -> Callable[[], None]:
    """Has each layer compiled with its first call, once for all numbers of tokens.

    Returns:
        What takes it back.
    """
    # In this process: a pool of compilers would stay, each with a torch of its own, for a dozen small kernels.
    inductor.compile_threads = 1
    names = getattr(model, "_no_split_modules", None) or ()
    layers = [one for one in model.modules() if type(one).__name__ in names] or [model]
    for layer in layers:
        layer.compile(dynamic=True)

    def undo() -> None:
        for layer in layers:
            layer._compiled_call_impl = None  # noqa: SLF001 - there is no public way back

    return undo
