"""What a bare engine is asked for, and how texts are cut into its batches; needs numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Embeddings = NDArray[np.float32]
_BUDGETS = (256, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True, slots=True)
class Texts:
    """Some texts, both ways.

    Attributes:
        rows: Token ids of each, special tokens included.
        texts: What they were made of.
    """

    rows: Sequence[Ids]
    texts: Sequence[str]

    def choose(self, places: Sequence[int]) -> "Texts":
        """Those at the places, in that order."""
        return Texts([self.rows[place] for place in places], [self.texts[place] for place in places])

    @property
    def tokens(self) -> int:
        """In all of them."""
        return sum(len(row) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to use an engine; the best one for each mix is found beforehand.

    Attributes:
        name: Says what is done.
        batches: Of the places of texts.
        option: For the engine.
    """

    name: str
    batches: Sequence[Sequence[int]]
    option: Any = None


class Engine(Protocol):
    """A model in this process."""

    def ways(self, lengths: Sequence[int]) -> Sequence[Way]:
        """What to try on texts of such lengths."""

    def start(self, batch: Texts, option: Any) -> int:
        """Begins one batch, and may end it; returns the positions that it computes, padding included."""

    def finish(self) -> None:
        """Waits for all that was begun."""

    def embed(self, batch: Texts) -> Embeddings:
        """Rows of unit length."""


def sorted_ways(lengths: Sequence[int], options: Mapping[str, Any]) -> list[Way]:
    """All texts sorted by length: as little padding as can be, and more than any server can know beforehand."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    return [
        Way(
            f"sorted, {budget} tokens a batch, {name}",
            by_budget(order, lengths, budget, padded=True),
            option,
        )
        for budget in _BUDGETS
        for name, option in options.items()
    ]


def arrival_ways(lengths: Sequence[int]) -> list[Way]:
    """As they come."""
    order = range(len(lengths))
    return [
        Way(f"as they come, {budget} tokens a batch", by_budget(order, lengths, budget, padded=False))
        for budget in _BUDGETS
    ]


def by_budget(order: Sequence[int], lengths: Sequence[int], budget: int, *, padded: bool) -> list[list[int]]:
    """Consecutive places, so many that their tokens (or their rectangle, if padded) fit; at least one a batch."""
    batches: list[list[int]] = []
    tokens = longest = 0
    for place in order:
        longest = max(longest, lengths[place])
        tokens += lengths[place]
        if not batches or (longest * (len(batches[-1]) + 1) if padded else tokens) > budget:
            batches.append([])
            tokens = longest = lengths[place]
        batches[-1].append(place)
    return batches


def rectangle(rows: Sequence[Ids]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids padded with 0 and their mask, both (n, longest)."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    return ids, mask.astype(np.int64)


def mean_rows(states: NDArray[np.float32], mask: NDArray[np.int64]) -> Embeddings:
    """Masked mean over tokens (n, tokens, width), of unit length."""
    summed = np.matmul(mask[:, None, :].astype(np.float32), states)[:, 0]
    return unit(summed)


def unit(rows: NDArray[np.float32]) -> Embeddings:
    """Rows of length 1; what divides a mean does not matter."""
    scaled: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled
