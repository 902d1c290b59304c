"""Pooling by hand, in both layouts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.model.pooling import Pooling, excluded_token_ids

VOCAB = 20


def both(pooling: Pooling, lengths: list[int], ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The packed result, after checking that the padded one is equal."""
    ends = torch.tensor([0, *np.cumsum(lengths).tolist()])
    packed = pooling.packed(states, ids, ends)
    width = max(lengths) + 2
    # What lies in the padding must not matter.
    padded_ids = torch.full((len(lengths), width), 3)
    padded_states = torch.full((len(lengths), width, states.shape[1]), 1e6)
    for row, length in enumerate(lengths):
        padded_ids[row, :length] = ids[ends[row] : ends[row + 1]]
        padded_states[row, :length] = states[ends[row] : ends[row + 1]]
    torch.testing.assert_close(pooling.rectangle(padded_states, padded_ids, torch.tensor(lengths)), packed)
    return packed


STATES = torch.arange(10, dtype=torch.float32).reshape(5, 2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mean", [[1, 2], [6, 7]]), ("cls", [[0, 1], [4, 5]]), ("last", [[2, 3], [8, 9]])],
)
def test_each_kind(kind: str, expected: list[list[float]]) -> None:
    ids = torch.tensor([5, 6, 7, 8, 9])
    pooled = both(Pooling(kind, (), VOCAB), [2, 3], ids, STATES)
    torch.testing.assert_close(pooled, torch.tensor(expected, dtype=torch.float32))


def test_excluded_tokens_do_not_count() -> None:
    pooled = both(Pooling("mean", {6, 9}, VOCAB), [2, 3], torch.tensor([5, 6, 7, 8, 9]), STATES)
    torch.testing.assert_close(pooled, torch.tensor([[0.0, 1.0], [5.0, 6.0]]))


def test_a_row_of_excluded_tokens_alone_is_pooled_whole() -> None:
    pooled = both(Pooling("mean", {5, 6}, VOCAB), [2, 3], torch.tensor([5, 6, 7, 8, 9]), STATES)
    torch.testing.assert_close(pooled[0], torch.tensor([1.0, 2.0]))
    assert torch.isfinite(pooled).all()


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sets(st.integers(0, VOCAB - 1), max_size=VOCAB),
    st.integers(0, 1000),
)
def test_the_mean_is_the_mean_of_what_is_left(lengths: list[int], excluded: set[int], seed: int) -> None:
    dice = np.random.default_rng(seed)
    ids = dice.integers(0, VOCAB, sum(lengths))
    states = dice.normal(size=(sum(lengths), 4)).astype(np.float32)
    pooled = both(Pooling("mean", excluded, VOCAB), lengths, torch.from_numpy(ids), torch.from_numpy(states))
    ends = np.cumsum(lengths)[:-1]
    for got, row_ids, row_states in zip(pooled, np.split(ids, ends), np.split(states, ends), strict=True):
        kept = [place for place, one in enumerate(row_ids.tolist()) if one not in excluded]
        expected = row_states[kept].mean(0) if kept else row_states.mean(0)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_bfloat16_states_are_summed_in_float32() -> None:
    states = torch.full((1000, 1), 1.0, dtype=torch.bfloat16)
    states[0] = 256
    pooled = Pooling("mean", (), VOCAB).packed(states, torch.zeros(1000, dtype=torch.int64), torch.tensor([0, 1000]))
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx((256 + 999) / 1000)


def test_a_token_that_the_vocabulary_lacks_is_not_added() -> None:
    assert excluded_token_ids({"[query]": 4, "w": 5}, ["[query]", "[nowhere]"], [2, 3]) == {2, 3, 4}


def test_what_counts_is_told_as_a_copy() -> None:
    pooling = Pooling("mean", {6}, VOCAB)
    counts = pooling.counts
    assert (counts[5], counts[6]) == (1, 0)
    counts[:] = 0
    assert pooling.counts[5] == 1
