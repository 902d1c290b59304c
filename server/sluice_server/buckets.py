"""Rows wait here by length, in order of arrival. Counts are kept as rows come and go, never recounted."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sluice_server.requests import ItemRun, PendingRequest, Priority, RunSlice, running_total

_NEVER = float("inf")


@dataclass(slots=True)
class Tally:
    """Of one priority over all buckets."""

    queued_tokens: int = 0


@dataclass(slots=True)
class Lane:
    """Rows of one bucket and one priority, first in, first out.

    Attributes:
        total: Told of every change.
        queued_tokens: Of live rows still queued.
        queued_rows: Live rows still queued.
    """

    total: Tally = field(default_factory=Tally)
    queued_tokens: int = 0
    queued_rows: int = 0
    _runs: deque[ItemRun] = field(default_factory=deque)

    @property
    def head(self) -> ItemRun | None:
        """The first run with rows left; emptied ones leave the lane here."""
        while self._runs:
            if self._runs[0].remaining_rows:
                return self._runs[0]
            self._runs.popleft()
        return None

    def append(self, run: ItemRun) -> None:
        """Queues a run behind all others."""
        self._runs.append(run)
        self._count(run.remaining_rows, run.remaining_tokens)

    def advance(self, run: ItemRun, rows: int) -> int:
        """Takes rows from the front of a run; returns their tokens."""
        end = run.taken + rows
        tokens = int(run.cumulative_tokens[end] - run.cumulative_tokens[run.taken])
        run.taken = end
        self._count(-rows, -tokens)
        return tokens

    def _count(self, rows: int, tokens: int) -> None:
        self.queued_rows += rows
        self.queued_tokens += tokens
        self.total.queued_tokens += tokens


@dataclass(slots=True)
class Bucket:
    """Rows of at most `max_tokens` each.

    Attributes:
        max_tokens: Longest row.
        lanes: One queue per priority.
    """

    max_tokens: int
    lanes: tuple[Lane, ...] = field(default_factory=lambda: tuple(Lane() for _ in Priority))

    @property
    def queued_tokens(self) -> int:
        """Of live rows still queued."""
        interactive, batch = self.lanes
        return interactive.queued_tokens + batch.queued_tokens

    @property
    def queued_rows(self) -> int:
        """Live rows still queued."""
        interactive, batch = self.lanes
        return interactive.queued_rows + batch.queued_rows

    @property
    def due_at(self) -> float:
        """The earliest of the lanes' first rows; infinity where nothing waits."""
        return min((head.due_at for lane in self.lanes if (head := lane.head)), default=_NEVER)

    def take(self, *, max_rows: int, max_tokens: int, force: bool) -> RunSlice | None:
        """Takes rows of the one run that is due first, as many as fit; None where none fits.

        Args:
            max_rows: Rows to take, at least 1.
            max_tokens: Of the rows taken.
            force: One row goes even where it alone is above max_tokens: nothing waits for ever.
        """
        heads = [(head, lane) for lane in self.lanes if (head := lane.head)]
        if not heads:
            return None
        run, lane = min(heads, key=lambda one: one[0].due_at)
        count = _rows_that_fit(run, max_rows, max_tokens, force=force)
        if count == 0:
            return None
        start = run.taken
        tokens = lane.advance(run, count)
        return RunSlice(run.request, run.indices[start : start + count], tokens, self.max_tokens)


class Buckets:
    """All queues of the server. Not thread-safe: the event loop owns them.

    Attributes:
        interactive_at: When the last interactive request came, on the server's clock.
    """

    def __init__(self, boundaries: Sequence[int]) -> None:
        self.interactive_at = -_NEVER
        # But the last one: what is behind it is in its bucket, too.
        self._boundaries = np.asarray(boundaries[:-1], dtype=np.int64)
        self._totals = tuple(Tally() for _ in Priority)
        self._buckets = tuple(Bucket(int(boundary), tuple(map(Lane, self._totals))) for boundary in boundaries)
        self._runs: dict[PendingRequest, list[tuple[Lane, ItemRun]]] = {}

    @property
    def waiting(self) -> list[Bucket]:
        """Those that hold rows, the shortest first."""
        return [one for one in self._buckets if one.lanes[0].queued_rows or one.lanes[1].queued_rows]

    @property
    def queued_tokens(self) -> int:
        """Over all buckets."""
        interactive, batch = self._totals
        return interactive.queued_tokens + batch.queued_tokens

    def queued_tokens_of(self, priority: Priority) -> int:
        """Over all buckets, of one priority."""
        return self._totals[priority].queued_tokens

    def add(self, request: PendingRequest) -> None:
        """Queues every row of the request in the bucket of its length.

        A row longer than the last boundary goes to the last bucket: the model's own limit was checked before.
        """
        lengths = request.rows.lengths
        places = self._boundaries.searchsorted(lengths)
        runs = []
        for place in sorted(set(places.tolist())):
            indices = (places == place).nonzero()[0]
            cumulative = request.offsets if len(indices) == len(places) else running_total(lengths[indices])
            run = ItemRun(request, indices, cumulative)
            lane = self._buckets[place].lanes[request.priority]
            lane.append(run)
            runs.append((lane, run))
        self._runs[request] = runs
        if request.priority is Priority.INTERACTIVE:
            self.interactive_at = request.arrived_at

    def forget(self, request: PendingRequest) -> int:
        """Drops what is still queued of a request that ended; returns its tokens."""
        tokens = 0
        for lane, run in self._runs.pop(request, ()):
            if remaining := run.remaining_rows:
                tokens += lane.advance(run, remaining)
        return tokens


def _rows_that_fit(run: ItemRun, max_rows: int, max_tokens: int, *, force: bool) -> int:
    before = run.cumulative_tokens[run.taken]
    fitting = int(np.searchsorted(run.cumulative_tokens, before + max_tokens, side="right")) - 1 - run.taken
    return min(max(fitting, 1 if force else 0), max_rows, run.remaining_rows)
