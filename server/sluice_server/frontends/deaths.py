"""Whether front ends that die are an accident. Pure; the time is a parameter."""

from collections import deque

_MOST = 3
_WITHIN_SECONDS = 60.0


class Deaths:
    """Counts those of the last minute."""

    def __init__(self) -> None:
        self._at: deque[float] = deque(maxlen=_MOST + 1)

    def are_too_many(self, now: float) -> bool:
        """One died; True where that is the fourth within a minute, as starting more would not help.

        Args:
            now: In seconds.
        """
        self._at.append(now)
        return len(self._at) > _MOST and now - self._at[0] <= _WITHIN_SECONDS
