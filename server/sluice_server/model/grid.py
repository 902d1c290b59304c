"""Sizes that packed batches are filled up to, so that shapes repeat. Pure.

oneDNN keeps a primitive, with its code and scratch memory, for each shape that it ever multiplied, a thousand of them:
with every batch a new number of tokens, memory grew by half a gigabyte and each batch paid for new primitives. Even so
each size costs 3 MiB when it first comes; `sizes` is for meeting them all before there is traffic.
"""

from collections.abc import Iterator

# Sizes between one power of two and the next: at most one part in so many is filled up, half of it on average.
_STEPS_PER_OCTAVE = 32
_LEAST_STEP = 8


def round_up(tokens: int) -> int:
    """The smallest size of the grid that holds so many tokens."""
    step = max(_LEAST_STEP, (1 << (tokens.bit_length() - 1)) // _STEPS_PER_OCTAVE)
    return -(-tokens // step) * step


def sizes(most: int) -> Iterator[int]:
    """All of them up to this many tokens, from the smallest."""
    size = round_up(1)
    while size <= most:
        yield size
        size = round_up(size + 1)
