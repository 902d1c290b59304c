"""The policies with their settings: what is compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from simulation.policies.hpa import Hpa
from simulation.policies.keda import Keda
from simulation.policies.kpa import Kpa
from simulation.policies.sluice import Sluice

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation.policies import Policy


@dataclass(frozen=True, slots=True)
class Tuning:
    """A policy with its settings."""

    family: str
    """Tunings of one family make one frontier."""
    name: str
    make: Callable[[], Policy]


SLUICE_DEFAULT = "down after 300 s"

SLUICE = tuple(Tuning("Sluice", f"down after {s} s", partial(Sluice, stabilization_seconds=s)) for s in (60, 150, 300))
HPA = tuple(
    Tuning(
        "HPA",
        f"{target:g} queued, mean of {window} s, down after {down} s",
        partial(Hpa, target, window_seconds=window, stabilization_seconds=down),
    )
    for target, (window, down) in product((0.6, 0.8, 1.0, 1.4, 2.0, 3.0), ((1, 300), (60, 300), (60, 60)))
)
KPA = tuple(
    Tuning(
        "KPA",
        f"{target:g} concurrent, scale-down delay {delay} s",
        partial(Kpa, "concurrency", target, scale_down_delay_seconds=delay),
    )
    for target, delay in product((0.5, 0.7, 0.9, 1.2, 1.5, 2.5), (0, 300))
)
KEDA = tuple(
    Tuning(
        "KEDA", f"{target:g} queued, down after {down} s", partial(Keda, "queue", target, stabilization_seconds=down)
    )
    for target, down in product((0.5, 0.7, 0.9, 1.2, 1.5, 2.5), (60, 300))
)
KPA_BY_RATE = tuple(
    Tuning(
        "KPA by rate",
        f"{share:.0%} of a pod, scale-down delay {delay} s",
        partial(Kpa, "rate", share, scale_down_delay_seconds=delay),
    )
    for share, delay in product((0.6, 0.7, 0.8), (0, 300))
)
KEDA_BY_RATE = tuple(
    Tuning(
        "KEDA by rate",
        f"{share:.0%} of a pod, down after {down} s",
        partial(Keda, "rate", share, stabilization_seconds=down),
    )
    for share, down in product((0.6, 0.7, 0.8), (60, 300))
)
ALL = (*SLUICE, *HPA, *KPA, *KEDA, *KPA_BY_RATE, *KEDA_BY_RATE)
