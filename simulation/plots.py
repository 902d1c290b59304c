"""The pictures: what one scenario looks like under each policy, and where all tunings lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from simulation.cluster import Series
    from simulation.runs import Result
    from simulation.scenarios import Scenario

COLORS = {
    "Sluice": "#0b6e99",
    "HPA": "#c0504d",
    "KPA": "#8064a2",
    "KEDA": "#7f9a3a",
    "KPA by rate": "#b8a9d0",
    "KEDA by rate": "#c3d69b",
}
_POINTS = 600
"""A line has at most so many points."""


def timeline(scenario: Scenario, series: Mapping[str, Series], path: Path) -> None:
    """Pods asked for over time, for one tuning of each policy, above the work that clients ask for."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    hours = np.arange(scenario.seconds) / 3600
    step = max(1, scenario.seconds // _POINTS)
    axes.fill_between(hours[::step], _mean(scenario.rate, step), color="0.88", label="work asked for, in pods")
    for name, seen in series.items():
        axes.plot(
            hours[::step], seen.requested[::step], color=COLORS[name], lw=1.6 if name == "Sluice" else 0.9, label=name
        )
    axes.set(title=scenario.name, xlabel="hours", ylabel="pods asked for", xlim=(0, hours[-1]), ylim=(0, None))
    figure.legend(fontsize=7, ncols=5, loc="outside lower center")
    _save(figure, path)


def frontiers(results: Mapping[str, Sequence[Result]], path: Path) -> None:
    """All tunings of all policies: one panel for each scenario."""
    columns = 4
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.7 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for panel, (scenario, found) in zip(panels, results.items(), strict=False):
        _panel(panel, scenario, found)
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    panels[0].legend(fontsize=6)
    _save(figure, path)


def _panel(axes: Axes, scenario: str, results: Sequence[Result]) -> None:
    for family, color in COLORS.items():
        points = [(r.mean_pods, 100 * r.late_share) for r in results if r.family == family]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, np.maximum(y, _LEAST_SHOWN), s=26 if family == "Sluice" else 10, color=color, label=family)
    axes.set_yscale("log")
    axes.set_title(scenario, fontsize=8)
    axes.set_xlabel("pods, on average", fontsize=7)
    axes.set_ylabel("late or refused, %", fontsize=7)
    axes.tick_params(labelsize=6)


_LEAST_SHOWN = 0.001
"""Percent: the floor of the logarithmic axis."""


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]], step: int) -> list[float]:
    return [float(values[i : i + step].mean()) for i in range(0, len(values), step)]


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "sluice"}):
        figure.savefig(path, dpi=110, metadata={"Software": None})
