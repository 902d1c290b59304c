"""Which device and which precision: probed, never assumed."""

import torch

from sluice_server.errors import ModelLoadError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(wanted: str) -> str:
    """Cpu or cuda.

    Raises:
        ModelLoadError: cuda is asked for and not there.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError("DEVICE=cuda: torch sees no CUDA device here; expected cpu, or auto")
    return wanted


def choose_dtype(wanted: str, device: str) -> str:
    """bfloat16 where the device computes it natively: elsewhere it is many times slower than float32."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("sve_bf16")
    return "bfloat16" if native else "float32"
