"""Queues of rows by length: first in, first out within a bucket and a priority."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sluice_server.requests import ItemRun, PendingRequest, RunSlice


@dataclass(slots=True)
class Bucket:
    """Rows of at most `max_tokens` each.

    Attributes:
        max_tokens: Longest row.
        lanes: One queue per priority.
        queued_tokens: Of live rows still queued.
        queued_rows: Live rows still queued.
    """

    max_tokens: int
    lanes: tuple[deque[ItemRun], deque[ItemRun]] = field(default_factory=lambda: (deque(), deque()))
    queued_tokens: int = 0
    queued_rows: int = 0

    def heads(self) -> Iterator[ItemRun]:
        """The first live run of each lane."""
        for lane in self.lanes:
            while lane and not lane[0].remaining_rows:
                lane.popleft()
            if lane:
                yield lane[0]

    def take(self, *, max_rows: int, max_tokens: int, at_least_one: bool) -> list[RunSlice]:
        """Takes rows from the front, as many as fit; interactive rows first.

        Args:
            max_rows: Rows to take.
            max_tokens: Of the rows taken.
            at_least_one: The first row goes even where it alone is above max_tokens: nothing waits for ever.
        """
        slices: list[RunSlice] = []
        for lane in self.lanes:
            while lane and max_rows > 0:
                run = lane[0]
                if not run.remaining_rows:
                    lane.popleft()
                    continue
                count = _rows_that_fit(run, max_rows, max_tokens, force=at_least_one and not slices)
                if count == 0:
                    return slices
                slices.append(self._advance(run, count))
                max_rows -= count
                max_tokens -= slices[-1].tokens
        return slices

    def drop(self, run: ItemRun) -> int:
        """Removes what is still queued of a run; returns its tokens. The empty run leaves its lane later."""
        dropped = run.remaining_tokens
        self.queued_tokens -= dropped
        self.queued_rows -= run.remaining_rows
        run.taken = len(run.indices)
        return dropped

    def _advance(self, run: ItemRun, count: int) -> RunSlice:
        start, end = run.taken, run.taken + count
        tokens = int(run.cumulative_tokens[end] - run.cumulative_tokens[start])
        run.taken = end
        self.queued_tokens -= tokens
        self.queued_rows -= count
        return RunSlice(run.request, run.indices[start:end], tokens, self.max_tokens)


class Buckets:
    """All queues of the server. Not thread-safe: the event loop owns them."""

    def __init__(self, boundaries: Sequence[int]) -> None:
        self._boundaries = np.asarray(boundaries, dtype=np.int64)
        self._buckets = tuple(Bucket(int(boundary)) for boundary in boundaries)
        self._runs: dict[PendingRequest, list[tuple[Bucket, ItemRun]]] = {}

    def __iter__(self) -> Iterator[Bucket]:
        return iter(self._buckets)

    @property
    def queued_tokens(self) -> int:
        """Over all buckets."""
        return sum(bucket.queued_tokens for bucket in self._buckets)

    def add(self, request: PendingRequest) -> None:
        """Queues every row of the request in the bucket of its length.

        A row longer than the last boundary goes to the last bucket: the model's own limit was checked before.
        """
        lengths = request.rows.lengths
        places = np.minimum(np.searchsorted(self._boundaries, lengths), len(self._buckets) - 1)
        runs = []
        for place in np.unique(places):
            bucket = self._buckets[place]
            indices = np.flatnonzero(places == place)
            cumulative = np.concatenate(([0], np.cumsum(lengths[indices], dtype=np.int64)))
            run = ItemRun(request, indices, cumulative)
            bucket.lanes[request.priority].append(run)
            bucket.queued_tokens += run.remaining_tokens
            bucket.queued_rows += run.remaining_rows
            runs.append((bucket, run))
        self._runs[request] = runs

    def forget(self, request: PendingRequest) -> int:
        """Drops what is still queued of a request that ended; returns its tokens."""
        return sum(bucket.drop(run) for bucket, run in self._runs.pop(request, ()))


def _rows_that_fit(run: ItemRun, max_rows: int, max_tokens: int, *, force: bool) -> int:
    before = run.cumulative_tokens[run.taken]
    fitting = int(np.searchsorted(run.cumulative_tokens, before + max_tokens, side="right")) - 1 - run.taken
    return min(max(fitting, 1 if force else 0), max_rows, run.remaining_rows)
