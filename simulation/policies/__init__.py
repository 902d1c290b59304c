"""Who decides the number of pods. All see the same cluster and have the same bounds.

The peers are implemented from their documents and sources, in their best light: their metrics are exact, no scrape
interval delays them, and a request in computation counts as queued, so that queues say something about idle pods too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from simulation.cluster import Cluster


class Policy(Protocol):
    """One autoscaler at work."""

    interval_seconds: int
    """How often it decides."""
    has_gates: bool
    """Whether its pods carry the readiness gate."""

    def decide(self, cluster: Cluster) -> None:
        """Looks at the cluster and changes it."""
