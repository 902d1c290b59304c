"""Plays every scenario under every policy and writes simulation/results/: `python -m simulation`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from simulation import plots, report, runs, scenarios
from simulation.tunings import ALL as TUNINGS
from simulation.tunings import SLUICE_DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation.runs import Result
    from simulation.scenarios import Scenario

RESULTS = Path(__file__).parent / "results"
SHOWN = {
    "Sluice": SLUICE_DEFAULT,
    "HPA": "0.8 queued, mean of 60 s, down after 300 s",
    "KPA": "0.7 concurrent, scale-down delay 300 s",
    "KEDA": "0.7 queued, down after 300 s",
}
"""The tunings in the pictures over time."""


def main() -> None:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--scenario", action="append", help="only this one; nothing is written")
    parser.add_argument(
        "--family",
        action="append",
        choices=sorted({t.family for t in TUNINGS}),
        help="only this policy anew, and what is missing; all other results are kept",
    )
    options = parser.parse_args()
    chosen = [s for s in scenarios.ALL if not options.scenario or s.name in options.scenario]
    if not chosen:
        parser.error(f"--scenario: there are {', '.join(repr(s.name) for s in scenarios.ALL)}")
    kept = _committed() if options.family else []
    found = {_key(r): r for r in kept if r.family not in options.family}
    wanted = [(s.name, t.family, t.name) for s in chosen for t in TUNINGS]
    anew = [key for key in wanted if key not in found]
    began = time.perf_counter()
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        found.update({_key(result): result for result in pool.map(_measure, anew)})
        results = [found[key] for key in wanted]
        sys.stdout.write(report.table(chosen, results, (*report.PEERS, *report.PEERS_BY_RATE)) + "\n")
        hours = sum(scenarios.named(key[0]).seconds for key in anew) / 3600
        sys.stdout.write(f"\n{hours:.0f} hours of traffic in {time.perf_counter() - began:.0f} s\n")
        if not options.scenario:
            _write(chosen, results)
            list(pool.map(_draw, chosen))


def _measure(job: tuple[str, str, str]) -> Result:
    tuning = next(t for t in TUNINGS if (t.family, t.name) == job[1:])
    return runs.measure(scenarios.named(job[0]), tuning)[0]


def _key(result: Result) -> tuple[str, str, str]:
    return (result.scenario, result.family, result.tuning)


def _committed() -> list[Result]:
    return [runs.Result(**fields) for fields in json.loads((RESULTS / "results.json").read_text())]


def _draw(scenario: Scenario) -> None:
    shown = [t for t in TUNINGS if SHOWN.get(t.family) == t.name]
    plots.timeline(scenario, {t.family: runs.measure(scenario, t)[1] for t in shown}, RESULTS / f"{scenario.slug}.png")


def _write(chosen: Sequence[Scenario], results: Sequence[Result]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    (RESULTS / "README.md").write_text(report.document(chosen, results))
    (RESULTS / "runs.md").write_text("# Every run\n\n" + report.every_run(results) + "\n")
    plots.frontiers({s.name: [r for r in results if r.scenario == s.name] for s in chosen}, RESULTS / "frontiers.png")


if __name__ == "__main__":
    main()
