"""The table of results: one line for each scenario, Sluice with its defaults against each peer's frontier. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.frontier import Comparison, Point, compare
from simulation.tunings import SLUICE_DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from simulation.runs import Result
    from simulation.scenarios import Scenario

PEERS = ("HPA", "KPA", "KEDA")
"""On queue length or concurrency: they need to know nothing about the pods beforehand."""
PEERS_BY_RATE = ("KPA by rate", "KEDA by rate")
"""On the offered rate: someone has measured what a pod can do and has written it into the spec."""


def ours(results: Iterable[Result]) -> Result:
    """Sluice with its defaults."""
    return next(r for r in results if r.family == "Sluice" and r.tuning == SLUICE_DEFAULT)


def against(results: Sequence[Result], family: str) -> Comparison:
    """Sluice's defaults against all tunings of one family, in one scenario."""
    return compare(point(ours(results)), [point(r) for r in results if r.family == family])


def point(result: Result) -> Point:
    """Cost and lateness of one run."""
    return Point(result.mean_pods, result.late_share)


def table(scenarios: Sequence[Scenario], results: Sequence[Result], families: Sequence[str]) -> str:
    """Markdown: what Sluice needs and gives, and what each family needs for as much, and gives for as much."""
    lines = [
        "| scenario | Sluice: pods | late % | reversals per hour | " + " | ".join(families) + " |",
        "|---" * (4 + len(families)) + "|",
    ]
    for scenario in scenarios:
        found = [r for r in results if r.scenario == scenario.name]
        best = ours(found)
        cells = [_cell(against(found, family)) for family in families]
        hourly = best.reversals / best.seconds * 3600
        lines.append(
            f"| {scenario.name} | {best.mean_pods:.2f} | {100 * best.late_share:.3f} | {hourly:.1f} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def every_run(results: Sequence[Result]) -> str:
    """Markdown: all runs."""
    lines = [
        "| scenario | policy | tuning | pods | late % | refusals | changes | reversals |",
        "|---" * 8 + "|",
    ]
    lines += [
        f"| {r.scenario} | {r.family} | {r.tuning} | {r.mean_pods:.2f} | {100 * r.late_share:.3f} | "
        f"{r.refusals} | {r.changes} | {r.reversals} |"
        for r in results
    ]
    return "\n".join(lines)


def _cell(seen: Comparison) -> str:
    pods = "never" if seen.pods_at_same_share is None else f"{seen.pods_at_same_share:.2f}"
    late = "never" if seen.late_at_same_pods is None else f"{100 * seen.late_at_same_pods:.3f}"
    return f"{pods} / {late}" if seen.wins else f"**{pods} / {late}**"


def document(scenarios: Sequence[Scenario], results: Sequence[Result]) -> str:
    """The README of the results."""
    stories = "\n".join(
        f"- **{s.name}**: {s.story}." for s in scenarios if s.warm_up_seconds == scenarios[0].warm_up_seconds
    )
    return _PAGE.format(
        stories=stories,
        table=table(scenarios, results, PEERS),
        by_rate=table(scenarios, results, PEERS_BY_RATE),
        losses=_losses(scenarios, results),
        pictures="\n".join(f"![{s.name}]({s.slug}.png)" for s in scenarios),
    )


def _losses(scenarios: Sequence[Scenario], results: Sequence[Result]) -> str:
    lost = [
        f"- {s.name}: {family}"
        for s in scenarios
        for family in (*PEERS, *PEERS_BY_RATE)
        if not against([r for r in results if r.scenario == s.name], family).wins
    ]
    return "\n".join(lost) or "None."


_PAGE = """# Sluice's scaling against its peers', simulated

`make simulate` made this page. A model of pods, clients, kubelet and endpoints; around it the operator's own
functions, from the windows over /health up to `plan.decide`, and HPA, Knative's KPA and KEDA from their documents and
sources. Traffic is drawn once and is the same for all. A request is in time when it is answered within a second of
its first attempt; a pod costs from the moment it is asked for, also while it warms up (20 s, or 3 minutes).

{stories}

Each peer is run under 6 to 18 tunings, and its frontier is what these can do, joined by straight lines. Sluice is run
with its defaults. In each cell: the pods that the peer needs on average for as many requests in time as Sluice, and
the share in % that is late with it at as many pods as Sluice's. *never*: no tuning gets there. **Bold**: Sluice loses.

## Against peers that see queues

{table}

## Against peers that were told what a pod can do

The same KPA and KEDA on the offered rate, with a pod's true speed written into their target by hand. Sluice measures
it. In practice the number is unknown beforehand and changes with model, machine and length of texts.

{by_rate}

## What the model leaves out

All requests are of one size. A pod's speed does not depend on its batches. Every client calls pods itself, in turn
over the ready ones; Knative's activator, which buffers in front of pods, has no part. Peers' metrics are exact and
without delay; what Sluice's pods say of their own speed errs by 3 %. Each run is one draw of the traffic.
The constants of Sluice's algorithm were chosen on these very scenarios, as the best tuning of each peer is, by design.
With another draw (seed 7, all scenarios but the day) Sluice won against every peer that sees queues as well; how it
does on traffic of another shape is not shown here.

Sluice has no knob for its headroom, so it is one point for each stabilization window, not a curve: a peer may buy
fewer late requests than Sluice ever has, with more pods.

## Where Sluice loses

{losses}

## Pictures

All tunings; further left and further down is better.

![all tunings](frontiers.png)

{pictures}

[Every run](runs.md), [as data](results.json).
"""
