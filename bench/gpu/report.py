"""The page of a run on a GPU. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.gpu.model import LENGTHS, flops_per_token

# NVIDIA's datasheet for the H100 and H200 (SXM), bfloat16 without sparsity, in TFLOP/s.
_DATASHEET_TFLOPS = 989.0
# Tokens/s of the estimate to beat on an H200: multiplications at 600 TFLOP/s, all else at the measured 4.3 TB/s or
# at attention's 300 TFLOP/s, one after the other.
_ESTIMATES = {32: 1.87e6, 128: 1.81e6, 512: 1.70e6}

_TITLE = """# The engine on a GPU

`python -m bench.gpu` made this page on one {device} with torch {torch}. A model of ModernBERT-base's size with random
weights computes batches of about 8,960 tokens in rows of one length, from ids on the host to embeddings on the host; no
server, no network. Everybody takes turns of one second, three rounds of them; rates are medians over the rounds, ratios
are taken within each round. Rows of one length leave the padded layout nothing to pad: its best case.
sentence-transformers attends by torch's own `sdpa`; flash-attn, which it would take, too, has no wheel: packed rows
through torch's FlashAttention-2 stand for it.
"""
_CEILINGS = """Measured in the same run: a large product in bfloat16 {matrix:.0f} TFLOP/s, a copy {copy:.2f} TB/s.
"""
_AGAINST = """## Against what the GPU can do

Model FLOPs of the useful tokens over the datasheet's {datasheet:.0f} TFLOP/s and over the product measured here; the
estimate to beat counts every step at the speed that it has alone; the gap is the share of the time in which no batch's
kernels run.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One contestant at one length.

    Attributes:
        name: Who.
        length: Tokens of each row.
        tokens: Of one batch.
        rates: Tokens per second in each round.
        device_seconds: Of one batch, without the host; None where it was not taken.
        cosine: The lowest to the first contestant's embeddings.
    """

    name: str
    length: int
    tokens: int
    rates: Sequence[float]
    device_seconds: float | None
    cosine: float

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return float(np.median(self.rates))


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run.

    Attributes:
        device: The GPU's name.
        torch: Its version.
        matrix_tflops: Of a large product in bfloat16.
        copy_terabytes: Per second, read and written.
        figures: Of everybody at every length.
        start_seconds: From nothing to ready, by name.
        absent: Who could not take part, and why.
    """

    device: str
    torch: str
    matrix_tflops: float
    copy_terabytes: float
    figures: Sequence[Figures]
    start_seconds: Mapping[str, float]
    absent: Mapping[str, str]


def page(result: Result) -> str:
    """Markdown."""
    parts = [
        _TITLE.format(device=result.device, torch=result.torch),
        _CEILINGS.format(matrix=result.matrix_tflops, copy=result.copy_terabytes),
        *(_table(result, length) for length in LENGTHS),
        _limits(result),
        "## From nothing to ready\n",
        "\n".join(f"- {name}: {seconds:.0f} s" for name, seconds in result.start_seconds.items()) + "\n",
    ]
    if result.absent:
        parts += ["## Absent\n", "\n".join(f"- {name}: {why}" for name, why in result.absent.items()) + "\n"]
    return "\n".join(parts)


def _table(result: Result, length: int) -> str:
    ours = [one for one in result.figures if one.length == length]
    lines = [
        f"## Rows of {length} tokens\n",
        "| | million tokens/s | Sluice ÷ it | lowest cosine to Sluice |",
        "|---|---|---|---|",
    ]
    for one in ours:
        ratios = [mine / theirs for mine, theirs in zip(ours[0].rates, one.rates, strict=True)]
        ratio = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        shown = f"**{ratio}**" if np.median(ratios) < 1 else ratio
        lines.append(f"| {one.name} | {one.rate / 1e6:.2f} | {shown} | {one.cosine:.4f} |")
    return "\n".join(lines) + "\n"


def _limits(result: Result) -> str:
    lines = [
        _AGAINST.format(datasheet=_DATASHEET_TFLOPS),
        "| | tokens per row | million tokens/s | MFU, datasheet | of the measured product | of the estimate | gap |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in result.figures:
        if one.device_seconds is None:
            continue
        flops = one.rate * flops_per_token(one.length) / 1e12
        gap = 1 - one.device_seconds * one.rate / one.tokens
        lines.append(
            f"| {one.name} | {one.length} | {one.rate / 1e6:.2f} | {flops / _DATASHEET_TFLOPS:.1%} | "
            f"{flops / result.matrix_tflops:.1%} | {one.rate / _ESTIMATES[one.length]:.2f} | {max(0.0, gap):.1%} |"
        )
    return "\n".join(lines) + "\n"
