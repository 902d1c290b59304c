"""A front end's metrics: the main process's, told several times a second."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sluice_server.counters import Counters
from sluice_server.observability.observations import Observations, Refused, no_answers

if TYPE_CHECKING:
    from sluice_server.serving import Embedded

_TELL_SECONDS = 0.1
# Between two looks at the clock a flood may come: then it is told at once.
_MOST_ANSWERS = 4096


class Telling:
    """A Recorder that adds up, and tells what it has.

    Args:
        tell: Takes what came since it was told last.
        counters: Of what this process refuses itself.
    """

    def __init__(self, tell: Callable[[Observations], None], counters: Counters) -> None:
        self._tell = tell
        self._counters = counters
        self._told_of: dict[str, Refused] = {}
        self._began: Counter[str] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._answers: list[tuple[float, float, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, api: str) -> None:
        """See Recorder."""
        self._began[api] += 1
        self._soon()

    def answer(self, embedded: "Embedded") -> None:
        """See Recorder."""
        self._answers.append((embedded.tokenize_ms, embedded.queue_ms, embedded.compute_ms, embedded.total_ms))
        self._soon()
        if len(self._answers) >= _MOST_ANSWERS:
            self.flush()

    def end(self, api: str, code: str) -> None:
        """See Recorder."""
        self._ended[api, code] += 1
        self._soon()

    def note(self, told: Observations) -> None:
        """See Recorder; nobody tells a front end of requests."""
        raise NotImplementedError

    def flush(self) -> None:
        """Tells now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        began, ended, answers = self._began, self._ended, self._answers
        self._began, self._ended, self._answers = Counter(), Counter(), []
        if began or ended or answers:
            times = np.array(answers) if answers else no_answers()
            self._tell(Observations(began, ended, times, self._newly_rejected()))

    def _newly_rejected(self) -> dict[str, Refused]:
        """Since it was asked last; whoever is refused has ended, too, or will in a moment."""
        tokens = self._counters.rejected_tokens
        before, none = self._told_of, Refused(0, 0)
        self._told_of = {
            reason: Refused(requests, tokens[reason]) for reason, requests in self._counters.rejected_requests.items()
        }
        return {
            reason: Refused(now.requests - then.requests, now.tokens - then.tokens)
            for reason, now in self._told_of.items()
            if now != (then := before.get(reason, none))
        }

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TELL_SECONDS, self.flush)
