"""The traffic and the faults that policies are compared under. Rates are in pods of full speed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from simulation.traffic import decay, hold, noise, ramp, wave

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_PODS, MAX_PODS = 1, 30
SHORT_WARM_UP, LONG_WARM_UP = 20, 180
"""Seconds from a server's start until it serves: a small model from a local disk, and a large one."""
POLL_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a service, whoever scales it."""

    name: str
    story: str
    """One sentence for the table."""
    rate: NDArray[np.float64]
    """Work that clients ask for, in each second."""
    warm_up_seconds: int = SHORT_WARM_UP
    clients_retry: bool = False
    has_slow_pods: bool = False
    """Every tenth pod computes at half speed."""
    loses_polls: bool = False
    settle_seconds: int = 600
    """What happens before is not measured."""

    @property
    def seconds(self) -> int:
        """How long it takes."""
        return len(self.rate)

    @property
    def slug(self) -> str:
        """Its name as a file's."""
        return self.name.replace(",", "").replace(" ", "-")

    @property
    def initial_pods(self) -> int:
        """Pods that serve at the beginning."""
        first = float(self.rate[0])
        return min(MAX_PODS, math.ceil(first + math.sqrt(first)))

    def lost_share(self, now: int) -> float:
        """Of the questions put to pods now, those that get no answer."""
        if not self.loses_polls:
            return 0.0
        second = now % 1800
        if 900 <= second < 930:  # noqa: PLR2004 - nobody is heard for half a minute
            return 1.0
        return 0.5 if 1200 <= second < 1320 else 0.1  # noqa: PLR2004 - a bad link to half of the nodes


def _steps() -> NDArray[np.float64]:
    # No multiple of any policy's interval: what a step meets differs each time.
    return np.concatenate(
        [hold(2, 20.12), hold(10, 20.05), hold(2, 20.08), hold(10, 20.12), hold(2, 20.03), hold(10, 20.1), hold(2, 20)]
    )


def _ramps() -> NDArray[np.float64]:
    return np.concatenate([hold(2, 15), ramp(2, 14, 30), hold(14, 15), ramp(14, 2, 30), hold(2, 20)])


def _day() -> NDArray[np.float64]:
    return wave(1, 11, 24) * noise(24 * 3600, sigma=0.05, correlation_seconds=60, seed=11)


def _crowds() -> NDArray[np.float64]:
    crowd = [hold(3, 25), ramp(3, 12, 0.3), hold(12, 8), decay(12, 3, 25, 4)]
    return np.concatenate([*crowd, *crowd, hold(3, 10)])


def _noisy() -> NDArray[np.float64]:
    return hold(8, 180) * noise(180 * 60, sigma=0.15, correlation_seconds=20, seed=13)


def _swell() -> NDArray[np.float64]:
    return wave(5, 10, 2, 1) * noise(7200, sigma=0.05, correlation_seconds=60, seed=17)


def _mixed() -> NDArray[np.float64]:
    steps = np.concatenate([hold(4, 30), hold(8, 30), hold(5, 30), hold(9, 30)])
    return steps * noise(len(steps), sigma=0.1, correlation_seconds=30, seed=19)


BASE = (
    Scenario("step", "2 pods' worth of work, at once 10, 20 minutes later 2 again; three times", _steps()),
    Scenario("ramp", "from 2 to 14 pods' worth in half an hour, and back", _ramps()),
    Scenario("daily wave", "a day between 1 and 11 pods' worth, with noise of 5 %", _day()),
    Scenario(
        "flash crowd",
        "4 times the work within 20 s, twice; refused clients try twice more",
        _crowds(),
        clients_retry=True,
    ),
    Scenario("noisy steady", "8 pods' worth for 3 hours, with noise of 15 % that lasts 20 s", _noisy()),
    Scenario("slow pods", "every tenth pod at half speed, between 5 and 10 pods' worth", _swell(), has_slow_pods=True),
    Scenario(
        "lost polls",
        "a tenth of the polls lost, then all for 30 s, then half for 2 minutes",
        _mixed(),
        loses_polls=True,
    ),
)


def long_warm_up(scenario: Scenario) -> Scenario:
    """The same with pods that warm up for three minutes."""
    return replace(scenario, name=f"{scenario.name}, 3 min warm-up", warm_up_seconds=LONG_WARM_UP)


ALL = tuple(s for base in BASE for s in (base, long_warm_up(base)))


def named(name: str) -> Scenario:
    """The scenario of this name."""
    return next(s for s in ALL if s.name == name)
