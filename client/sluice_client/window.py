"""How many requests of one call are under way at once: halved by a refusal, grown by successes. Pure."""


class Window:
    """Additive increase, multiplicative decrease, as in TCP.

    Requests that were under way together are refused together: only the first refusal of what was sent
    after the last cut cuts again.

    Args:
        largest: Where it starts, and never above.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._size = float(largest)
        self._cut_at = float("-inf")

    @property
    def size(self) -> int:
        """At least 1."""
        return int(self._size)

    def on_success(self) -> None:
        """One more after a whole window of successes."""
        self._size = min(float(self.largest), self._size + 1 / self._size)

    def on_refusal(self, sent_at: float, now: float) -> None:
        """Half of it."""
        if sent_at > self._cut_at:
            self._size = max(1.0, self._size / 2)
            self._cut_at = now
