"""Where a run finds its model and its peers, and where it writes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are.

    Attributes:
        model: A folder.
        cache: Of compiled and converted models.
        environment: Of the peers that need their own packages (dev/locks/peers.txt).
        room: For this run alone: logs, texts.
        threads: For everybody.
    """

    model: Path
    cache: Path
    environment: Path
    room: Path
    threads: int

    def log(self, name: str) -> Path:
        """For what a contestant says."""
        return self.room / f"{name.lower().replace(' ', '-').replace(',', '')}.log"
