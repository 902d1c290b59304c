"""When those who are refused are asked back. Pure; the time is a parameter."""

from sluice_server.requests import Priority

# Of the drain limit: nobody is sent away for longer, as they may not come back and the device would idle.
_LONGEST_LIMITS = 2.0


class Returns:
    """One after the other at the device's rate, as if they stood in a queue behind the queue.

    Told to come as soon as there is room for one, a thousand clients would all come then, and be refused again: at a
    thousand clients of two cores, refusing took a third of the work. Whoever does not come back loses their place only.

    Args:
        max_drain_ms: The limit of the queue itself; None where there is none, and nobody is refused.
    """

    def __init__(self, max_drain_ms: float | None) -> None:
        self._longest_seconds = _LONGEST_LIMITS * (max_drain_ms or 0.0) / 1000
        self._last_at = dict.fromkeys(Priority, 0.0)

    def after_ms(self, earliest_ms: int, work_ms: float | None, *, priority: Priority, now: float) -> int:
        """How long the caller should stay away.

        Args:
            earliest_ms: Until there is room for one.
            work_ms: What the request takes of the device; None is unknown.
            priority: Each has its own queue.
            now: In seconds.
        """
        earliest = now + earliest_ms / 1000
        latest = max(earliest, now + self._longest_seconds)
        at = min(max(earliest, self._last_at[priority]), latest)
        self._last_at[priority] = min(at + (work_ms or 0.0) / 1000, latest)
        return round(1000 * (at - now))
