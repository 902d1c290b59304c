"""`python -m bench.gpu [FOLDER]`: tokens/s, share of the GPU's peak, launch gaps.

Writes FOLDER/results/gpu.json and FOLDER/GPU.md. It needs a GPU; figures are printed as they are, losses too.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu import limits, report
from bench.gpu.model import LENGTHS, batch_tokens, save
from bench.gpu.report import Figures, Result
from bench.gpu.turns import MAKERS, AbsentError, Process, Turn

_ROUNDS = 3
_TURN_SECONDS = 1.0


def main() -> None:
    """Measures, prints and writes."""
    if not torch.cuda.is_available():
        sys.exit("no GPU is visible to torch; expected one")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "bench")
    (folder / "results").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        result = measure(Path(place))
    (folder / "results" / "gpu.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    page = report.page(result)
    (folder / "GPU.md").write_text(page)
    print(page)


def measure(place: Path) -> Result:
    """Everybody takes turns; ratios are taken within each round."""
    model, cache = save(place / "model"), place / "cache"
    taking_part: dict[str, Process] = {}
    absent: dict[str, str] = {}
    for name in MAKERS:
        print(f"starting {name}", file=sys.stderr, flush=True)
        try:
            taking_part[name] = Process(name, model, cache)
        except AbsentError as error:
            absent[name] = str(error)
    figures = [one for length in LENGTHS for one in _at(length, taking_part)]
    starts = {name: one.start_seconds for name, one in taking_part.items() if one.start_seconds is not None}
    for one in taking_part.values():
        one.end()
    again = Process("Sluice", model, cache)
    starts["Sluice, its second start"] = again.start_seconds or 0.0
    again.end()
    return Result(
        torch.cuda.get_device_name(), torch.__version__, limits.matrix_tflops(), limits.copy_terabytes(),
        figures, starts, absent,
    )  # fmt: skip


def _at(length: int, taking_part: dict[str, Process]) -> list[Figures]:
    turns: dict[str, list[Turn]] = {name: [] for name in taking_part}
    names = list(taking_part)
    for turn in range(_ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            turns[name].append(taking_part[name].compute(length, _TURN_SECONDS))
    made = []
    for name, taken in turns.items():
        rates = [one.tokens_per_second for one in taken]
        cosine = _cosine(taken[-1].rows, turns[names[0]][-1].rows)
        made.append(Figures(name, length, batch_tokens(length), rates, taken[-1].device_seconds, cosine))
        print(f"{length:4d} {name:32s} {np.median(rates) / 1e6:.3f} Mtokens/s", file=sys.stderr, flush=True)
    return made


def _cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / lengths).min())


if __name__ == "__main__":
    main()
