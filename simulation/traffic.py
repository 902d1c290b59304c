"""How much work clients ask for: requests per step, drawn from a rate that varies with time. Pure.

Rates are in pods of full speed, one value for each second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_SECONDS = 0.25
"""Resolution of queues; a pod computes about two requests in it."""
STEPS_PER_SECOND = 4
REQUEST_TOKENS = 1000
"""All requests are of one size: twenty passages of fifty tokens."""
POD_TOKENS_PER_SECOND = 10_000.0
"""What a pod of full speed computes."""


def requests(rate: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Requests that begin in each step: shape (seconds, STEPS_PER_SECOND), Poisson around the rate (seconds,)."""
    mean = rate * (POD_TOKENS_PER_SECOND / REQUEST_TOKENS * STEP_SECONDS)
    steps = np.repeat(mean[:, None], STEPS_PER_SECOND, axis=1)
    return np.random.default_rng(seed).poisson(steps)


def hold(pods: float, minutes: float) -> NDArray[np.float64]:
    """A constant rate."""
    return np.full(round(minutes * 60), pods)


def ramp(first: float, last: float, minutes: float) -> NDArray[np.float64]:
    """From one rate to another in a straight line."""
    return np.linspace(first, last, round(minutes * 60))


def decay(first: float, last: float, minutes: float, half_life_minutes: float) -> NDArray[np.float64]:
    """From one rate towards another, ever more slowly."""
    age = np.arange(round(minutes * 60)) / 60
    return np.asarray(last + (first - last) * 0.5 ** (age / half_life_minutes))


def wave(lowest: float, highest: float, hours: float, period_hours: float = 24.0) -> NDArray[np.float64]:
    """A sine that starts at its lowest."""
    hour = np.arange(round(hours * 3600)) / 3600
    return np.asarray(lowest + (highest - lowest) * (1 - np.cos(2 * np.pi * hour / period_hours)) / 2)


def noise(seconds: int, *, sigma: float, correlation_seconds: float, seed: int) -> NDArray[np.float64]:
    """A factor of mean one that wanders: the exponential of a first-order autoregressive process."""
    draws = np.random.default_rng(seed).standard_normal(seconds)
    keep = np.exp(-1 / correlation_seconds)
    state, path = 0.0, np.empty(seconds)
    for second, draw in enumerate(draws):
        state = keep * state + np.sqrt(1 - keep**2) * draw
        path[second] = state
    return np.asarray(np.exp(sigma * path - sigma**2 / 2))
