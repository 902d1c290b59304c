"""Rows wait here by length, in order of arrival. Counts are kept as rows come and go, never recounted."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sluice_server.requests import ItemRun, PendingRequest, Priority, RunSlice, running_total

_NEVER = float("inf")
# Indices of a request of one row; nobody writes to them.
_ONLY_ROW = np.zeros(1, dtype=np.int64)


@dataclass(slots=True)
class Tally:
    """Of one priority over all buckets.

    Attributes:
        queued_tokens: Of live rows still queued.
        changes: How often they came or went.
    """

    queued_tokens: int = 0
    changes: int = 0


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
        tokens = run.cumulative_tokens[end] - run.cumulative_tokens[run.taken]
        run.taken = end
        self._count(-rows, -tokens)
        return tokens

    def _count(self, rows: int, tokens: int) -> None:
        self.queued_rows += rows
        self.queued_tokens += tokens
        self.total.queued_tokens += tokens
        self.total.changes += 1


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
        return self._first()[0]

    def take(self, *, max_rows: int, max_tokens: int, force: bool) -> RunSlice | None:
        """Takes rows of the one run that is due first, as many as fit; None where none fits.

        Args:
            max_rows: Rows to take, at least 1.
            max_tokens: Of the rows taken.
            force: One row goes even where it alone is above max_tokens: nothing waits for ever.
        """
        _, run, lane = self._first()
        if run is None:
            return None
        count = _rows_that_fit(run, max_rows, max_tokens, force=force)
        if count == 0:
            return None
        start = run.taken
        tokens = lane.advance(run, count)
        return RunSlice(run.request, run.indices[start : start + count], tokens, self.max_tokens)

    def _first(self) -> tuple[float, ItemRun | None, Lane]:
        """The run that is due first, when, and in which lane; never and None where nothing waits."""
        interactive, batch = self.lanes
        run, other = interactive.head, batch.head
        due_at = _NEVER if run is None else run.due_at
        if other is not None and other.due_at < due_at:
            return other.due_at, other, batch
        return due_at, run, interactive


class Buckets:
    """All queues of the server. Not thread-safe: the event loop owns them.

    Attributes:
        interactive_at: When the last interactive request came, on the server's clock.
    """

    def __init__(self, boundaries: Sequence[int]) -> None:
        self.interactive_at = -_NEVER
        # But the last one: what is behind it is in its bucket, too.
        self._boundaries = tuple(boundaries[:-1])
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

    @property
    def changes(self) -> int:
        """How often rows came or went: while it stays the same, so does all else."""
        interactive, batch = self._totals
        return interactive.changes + batch.changes

    def queued_tokens_of(self, priority: Priority) -> int:
        """Over all buckets, of one priority."""
        return self._totals[priority].queued_tokens

    def add(self, request: PendingRequest) -> None:
        """Queues every row of the request in the bucket of its length.

        A row longer than the last boundary goes to the last bucket: the model's own limit was checked before.
        """
        runs = []
        for place, run in self._runs_by_place(request):
            lane = self._buckets[place].lanes[request.priority]
            lane.append(run)
            runs.append((lane, run))
        self._runs[request] = runs
        if request.priority is Priority.INTERACTIVE:
            self.interactive_at = request.arrived_at

    def _runs_by_place(self, request: PendingRequest) -> Iterator[tuple[int, ItemRun]]:
        """The rows of a request by the places of their buckets, the shortest first."""
        lengths = request.rows.lengths
        if len(lengths) == 1:
            yield bisect_left(self._boundaries, request.offsets[1]), ItemRun(request, _ONLY_ROW, request.offsets)
            return
        places = np.searchsorted(self._boundaries, lengths)
        for place in sorted(set(places.tolist())):
            indices = (places == place).nonzero()[0]
            whole = len(indices) == len(places)
            yield place, ItemRun(request, indices, request.offsets if whole else running_total(lengths[indices]))

    def forget(self, request: PendingRequest) -> int:
        """Drops what is still queued of a request that ended; returns its tokens."""
        tokens = 0
        for lane, run in self._runs.pop(request, ()):
            if remaining := run.remaining_rows:
                tokens += lane.advance(run, remaining)
        return tokens


def _rows_that_fit(run: ItemRun, max_rows: int, max_tokens: int, *, force: bool) -> int:
    before = run.cumulative_tokens[run.taken]
    fitting = bisect_right(run.cumulative_tokens, before + max_tokens) - 1 - run.taken
    return min(max(fitting, 1 if force else 0), max_rows, run.remaining_rows)
