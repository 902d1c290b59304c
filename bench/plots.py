"""The pictures of a run."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import outcome, roster
from bench.outcome import Cell, Result
from bench.rounds import Spread

_OURS = {
    roster.NATIVE: "#0b6e99",
    roster.FLOAT32: "#5fa8c7",
    roster.PATIENT: "#4b8f6f",
    roster.PADDED: "#8fb8a3",
    roster.COMPILED: "#0b6e99",
    roster.COMPILED_FLOAT32: "#5fa8c7",
    roster.COMPILED_INT8: "#084c6b",
    "packed engine, eager": "#a9cfe0",
}
_PEERS = {
    roster.CORAL: "#c0504d",
    roster.CORAL_FLOAT32: "#d99694",
    "infinity torch": "#8064a2",
    "infinity optimum": "#b8a9d0",
    "text-embeddings-inference": "#4f6228",
    roster.REFERENCE: "#948a54",
    "sentence-transformers bfloat16": "#c4bd97",
    "ONNX Runtime float32": "#7f9a3a",
    "ONNX Runtime int8": "#c3d69b",
    "OpenVINO float32": "#e08e2e",
    "OpenVINO bfloat16": "#f4c07a",
}
_COLORS = _OURS | _PEERS
_TITLES = {
    "ids-1": "one text of ids per request",
    "ids-16": "16 texts of ids per request",
    "texts-1": "one text per request",
    "texts-16": "16 texts per request",
    "offline": "without a server",
}


def draw(result: Result, folder: Path) -> None:
    """Writes those pictures for which there are figures."""
    groups = [group for group in _TITLES if outcome.cells(result, group)]
    if groups:
        _throughput(result, groups, folder / "throughput.svg")
    if outcome.cells(result, "open"):
        _goodput(result, folder / "goodput.svg")
    growing = [group for group in ("clients", "texts") if outcome.cells(result, group)]
    if growing:
        _growth(result, growing, folder / "growth.svg")


def _throughput(result: Result, groups: Sequence[str], path: Path) -> None:
    """Useful tokens per second of everybody: a panel for each group, a cluster of bars for each mix."""
    figure = Figure(figsize=(9, 2.9 * len(groups)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(groups), 1)).ravel()
    for panel, group in zip(panels, groups, strict=True):
        _bars(panel, result, outcome.cells(result, group))
        panel.set(title=_TITLES[group], ylabel="useful tokens/s")
        panel.legend(fontsize=6, ncols=5)
    _save(figure, path)


def _bars(axes: Axes, result: Result, cells: Sequence[Cell]) -> None:
    names = [
        one["name"] for one in result["contestants"] if any(one["name"] in outcome.names(result, c) for c in cells)
    ]
    width = 0.85 / max(1, len(names))
    for place, name in enumerate(names):
        seen = [outcome.seen(result, cell["group"], name, outcome.tokens, mix=cell["mix"]) for cell in cells]
        heights, errors = _heights(seen)
        at = np.arange(len(cells)) + (place - (len(names) - 1) / 2) * width
        axes.bar(at, heights, width, color=_COLORS[name], label=name, yerr=errors, error_kw={"lw": 0.6})
    axes.set_xticks(range(len(cells)), [cell["mix"] for cell in cells])
    axes.margins(y=0.25)


def _goodput(result: Result, path: Path) -> None:
    """Answers in time over the load that was offered: a panel for each mix."""
    mixes = list(dict.fromkeys(cell["mix"] for cell in outcome.cells(result, "open")))
    figure = Figure(figsize=(4.5 * len(mixes), 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(mixes))).ravel()
    for panel, mix in zip(panels, mixes, strict=True):
        cells = outcome.cells(result, "open", mix=mix)
        offered = [cell["per_second"] for cell in cells]
        panel.plot(offered, offered, color="0.8", lw=0.8, label="offered")
        for name in outcome.names(result, cells[0]):
            seen = [
                outcome.seen(result, "open", name, lambda t: t.goodput, mix=mix, load=cell["load"]) for cell in cells
            ]
            panel.plot(offered, _heights(seen)[0], marker="o", ms=3, color=_COLORS[name], label=name)
        panel.set(title=mix, xlabel="requests/s offered", ylabel="answers in time/s", xlim=(0, None), ylim=(0, None))
        panel.legend(fontsize=7)
    _save(figure, path)


def _growth(result: Result, groups: Sequence[str], path: Path) -> None:
    """Useful tokens per second over clients, and over texts per request."""
    figure = Figure(figsize=(4.5 * len(groups), 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(groups))).ravel()
    for panel, group in zip(panels, groups, strict=True):
        cells = outcome.cells(result, group)
        steps = [cell[group] for cell in cells]
        for name in outcome.names(result, cells[0]):
            seen = [outcome.seen(result, group, name, outcome.tokens, **{group: step}) for step in steps]
            heights, errors = _heights(seen)
            panel.errorbar(steps, heights, yerr=errors, marker="o", ms=3, lw=1, color=_COLORS[name], label=name)
        panel.set_xscale("log", base=2)
        panel.set_xticks(steps, [str(step) for step in steps])
        unit = "clients" if group == "clients" else "texts per request"
        panel.set(xlabel=unit, ylabel="useful tokens/s", ylim=(0, None))
        panel.legend(fontsize=7)
    _save(figure, path)


def _heights(seen: Sequence[Spread | None]) -> tuple[list[float], list[list[float]]]:
    """Medians, and how far the range reaches below and above them."""
    known = [one or Spread(0, 0, 0) for one in seen]
    below, above = [one.median - one.least for one in known], [one.most - one.median for one in known]
    return [one.median for one in known], [below, above]


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "sluice"}):
        figure.savefig(path, metadata={"Date": None})
