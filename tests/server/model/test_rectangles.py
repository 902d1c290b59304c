"""A batch in rectangles: each row once, few shapes, little padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.backend import Batch
from sluice_server.model.rectangles import cut, round_up


def batch(lengths: list[int]) -> Batch:
    ids = np.arange(sum(lengths), dtype=np.int32)
    return Batch(ids, np.array(lengths, dtype=np.int32), max(lengths), len(lengths))


@given(st.lists(st.integers(1, 700), min_size=1, max_size=60))
def test_each_row_is_in_one_rectangle_with_its_own_tokens(lengths: list[int]) -> None:
    whole, seen = batch(lengths), np.zeros(len(lengths), dtype=int)
    rows = np.split(whole.token_ids, np.cumsum(lengths)[:-1])
    for kept, part in cut(whole):
        seen += kept
        np.testing.assert_array_equal(part.token_ids, np.concatenate([rows[one] for one in np.flatnonzero(kept)]))
        np.testing.assert_array_equal(part.lengths, whole.lengths[kept])
        assert len(part.lengths) <= part.rows < 1.5 * len(part.lengths) or part.rows == 1
        assert part.lengths.max() <= part.bucket
        assert part.bucket < 1.5 * part.lengths.min() or part.bucket == 1
    assert (seen == 1).all()


@given(st.integers(1, 4096), st.integers(1, 512))
def test_few_numbers_of_tokens_are_ever_multiplied(rows: int, length: int) -> None:
    tokens = int(round_up(rows)) * int(round_up(length))
    odd = tokens // (tokens & -tokens)
    assert odd in {1, 3, 9}


def test_a_size_stays_what_it_is() -> None:
    assert [int(round_up(one)) for one in (1, 2, 3, 4, 5, 6, 7, 9, 13, 100, 384, 512)] == [
        1, 2, 3, 4, 6, 6, 8, 12, 16, 128, 384, 512,
    ]  # fmt: skip
