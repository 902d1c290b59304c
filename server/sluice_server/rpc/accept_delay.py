"""How long calls wait in gRPC before the server sees them, by marked calls of its own. Pure.

gRPC queues what the server's event loop has not taken, first come, first served, and tells nobody how much that is. A
marked call goes through the same queue: what it waited, those around it waited, too.
"""

import os

# Ten a second cost a percent of a core at most, and tell of a queue before it is a tenth of a second long.
_APART_SECONDS = 0.1
# Enough for the longest queue that gRPC keeps; more would only make it longer.
_MOST_UNDER_WAY = 32
# Then what was seen says nothing of the calls that come now.
_FRESH_SECONDS = 1.0


class AcceptDelay:
    """What the marked calls say; all times on one clock, in seconds."""

    def __init__(self) -> None:
        # By mark, in the order in which they were sent: the queue's.
        self._sent: dict[bytes, float] = {}
        self._last_sent_at = self._seen_at = float("-inf")
        self._seen_seconds = 0.0

    def next_mark(self, now: float) -> bytes | None:
        """Of the call to be sent now; None where one was sent lately, or many are still on their way."""
        if now - self._last_sent_at < _APART_SECONDS or len(self._sent) >= _MOST_UNDER_WAY:
            return None
        # Nobody else can know it: a stranger's call tells nothing.
        mark = os.urandom(16)
        self._sent[mark] = self._last_sent_at = now
        return mark

    def accepted(self, mark: bytes, now: float) -> None:
        """The server sees a marked call; one that it did not send says nothing."""
        sent_at = self._sent.pop(mark, None)
        if sent_at is not None:
            self._seen_at, self._seen_seconds = now, now - sent_at

    def over(self, mark: bytes) -> None:
        """A marked call has ended; where gRPC never gave it to the server, nothing is known of how long it waited."""
        self._sent.pop(mark, None)

    def seconds(self, now: float) -> float | None:
        """Of a call that the server sees now; None while unknown.

        As long as the last marked call waited, or, while the queue grows, at least as long as the first of those that
        are still in it: what the server sees now came before that.
        """
        waiting = now - next(iter(self._sent.values())) if self._sent else None
        if now - self._seen_at > _FRESH_SECONDS:
            return waiting
        return self._seen_seconds if waiting is None else max(self._seen_seconds, waiting)
