"""When refusals begin, how many they are, and when they end: few lines for whoever is paged. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# One line at most in so many seconds, while requests are refused.
INTERVAL_SECONDS = 10.0


@dataclass(slots=True)
class RefusalLog:
    """Turns totals by reason into sentences.

    Attributes:
        began_at: Of the present run of refusals, on the caller's clock; None while there is none.
    """

    began_at: float | None = None
    _seen: dict[str, int] = field(default_factory=dict)
    _seen_at_begin: int = 0

    def look(self, now: float, refused_requests: Mapping[str, int]) -> str | None:
        """A sentence where there is something to say: call it at a refusal while quiet, then once per interval.

        Args:
            now: In seconds.
            refused_requests: Totals since boot, by reason.
        """
        new = {
            reason: count - self._seen.get(reason, 0)
            for reason, count in refused_requests.items()
            if count > self._seen.get(reason, 0)
        }
        before, self._seen = sum(self._seen.values()), dict(refused_requests)
        if self.began_at is None:
            if not new:
                return None
            self.began_at, self._seen_at_begin = now, before
            return f"requests are refused: {_by_reason(new)}"
        if new:
            count = sum(new.values())
            return f"{_requests(count)} refused in the last {INTERVAL_SECONDS:.0f} s: {_by_reason(new)}"
        total, lasted = before - self._seen_at_begin, now - self.began_at
        self.began_at = None
        return (
            f"pressure has ended: nothing was refused for {INTERVAL_SECONDS:.0f} s; "
            f"{_requests(total)} refused in the {max(0.0, lasted - INTERVAL_SECONDS):.0f} s before"
        )


def _by_reason(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"
