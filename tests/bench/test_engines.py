"""How texts are cut into a bare engine's batches, and pooled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engines import base

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 2048), st.booleans())
def test_every_text_is_in_one_batch_and_no_batch_of_several_exceeds_its_budget(
    lengths: list[int], budget: int, padded: bool
) -> None:
    batches = base.by_budget(range(len(lengths)), lengths, budget, padded=padded)
    assert [place for batch in batches for place in batch] == list(range(len(lengths)))
    for batch in batches:
        inside = [lengths[place] for place in batch]
        size = len(inside) * max(inside) if padded else sum(inside)
        assert size <= budget or len(batch) == 1


@given(LENGTHS)
def test_sorted_ways_bring_texts_of_a_length_together(lengths: list[int]) -> None:
    for way in base.sorted_ways(lengths, {"plain": None}):
        order = [lengths[place] for batch in way.batches for place in batch]
        assert order == sorted(lengths)


def test_a_rectangle_pads_behind_the_rows() -> None:
    ids, mask = base.rectangle([np.array([5, 6], dtype=np.int32), np.array([7], dtype=np.int32)])
    assert ids.tolist() == [[5, 6], [7, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]


def test_padding_has_no_part_in_the_mean() -> None:
    states = np.array([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 2.0], [9.0, 9.0]]], dtype=np.float32)
    pooled = base.mean_rows(states, np.array([[1, 1], [1, 0]]))
    assert pooled == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))
