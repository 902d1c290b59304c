"""Pooling by hand, in both layouts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sluice_server.model.pooling import Pooling, excluded_token_ids, packed_sums, padded_sums

VOCAB = 20


def both(pooling: Pooling, lengths: list[int], ids: list[int], states: NDArray[np.float32]) -> NDArray[np.float32]:
    """The packed result, after checking that the padded one is equal."""
    ends = np.append(0, np.cumsum(lengths))
    weights, totals = pooling.weights(np.array(ids), np.array(lengths))
    packed = packed_sums(torch.from_numpy(states), torch.from_numpy(weights), torch.from_numpy(ends))
    width = max(lengths) + 2
    # What lies in the padding must not matter.
    padded_states = torch.full((len(lengths), width, states.shape[1]), 1e6)
    padded_weights = torch.zeros((len(lengths), width))
    for row, length in enumerate(lengths):
        padded_states[row, :length] = torch.from_numpy(states[ends[row] : ends[row + 1]])
        padded_weights[row, :length] = torch.from_numpy(weights[ends[row] : ends[row + 1]])
    torch.testing.assert_close(padded_sums(padded_states, padded_weights), packed)
    return packed.numpy() / totals


STATES = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mean", [[1, 2], [6, 7]]), ("cls", [[0, 1], [4, 5]]), ("last", [[2, 3], [8, 9]])],
)
def test_each_kind(kind: str, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(both(Pooling(kind, (), VOCAB), [2, 3], [5, 6, 7, 8, 9], STATES), expected, rtol=1e-6)


def test_excluded_tokens_do_not_count() -> None:
    pooled = both(Pooling("mean", {6, 9}, VOCAB), [2, 3], [5, 6, 7, 8, 9], STATES)
    np.testing.assert_allclose(pooled, [[0.0, 1.0], [5.0, 6.0]], rtol=1e-6)


def test_a_row_of_excluded_tokens_alone_is_pooled_whole() -> None:
    pooled = both(Pooling("mean", {5, 6}, VOCAB), [2, 3], [5, 6, 7, 8, 9], STATES)
    np.testing.assert_allclose(pooled[0], [1.0, 2.0], rtol=1e-6)
    assert np.isfinite(pooled).all()


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sets(st.integers(0, VOCAB - 1), max_size=VOCAB),
    st.integers(0, 1000),
)
def test_the_mean_is_the_mean_of_what_is_left(lengths: list[int], excluded: set[int], seed: int) -> None:
    dice = np.random.default_rng(seed)
    ids = dice.integers(0, VOCAB, sum(lengths)).tolist()
    states = dice.normal(size=(sum(lengths), 4)).astype(np.float32)
    pooled = both(Pooling("mean", excluded, VOCAB), lengths, ids, states)
    ends = np.cumsum(lengths)[:-1]
    for got, row_ids, row_states in zip(pooled, np.split(ids, ends), np.split(states, ends), strict=True):
        kept = [place for place, one in enumerate(row_ids.tolist()) if one not in excluded]
        expected = row_states[kept].mean(0) if kept else row_states.mean(0)
        np.testing.assert_allclose(got, expected, atol=1e-5)


@given(
    st.sampled_from(["mean", "cls", "last"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sets(st.integers(0, VOCAB - 1)),
)
def test_the_weights_of_each_row_add_up_to_one(kind: str, lengths: list[int], excluded: set[int]) -> None:
    ids = np.arange(sum(lengths), dtype=np.int32) % VOCAB
    weights, totals = Pooling(kind, excluded, VOCAB).weights(ids, np.array(lengths, dtype=np.int32))
    assert (weights.dtype, totals.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(np.add.reduceat(weights, np.cumsum(lengths) - lengths) / totals[:, 0], 1.0, rtol=1e-6)


def test_bfloat16_states_are_summed_in_float32() -> None:
    states = torch.full((1000, 1), 1.0, dtype=torch.bfloat16)
    states[0] = 256
    weights, totals = Pooling("mean", (), VOCAB).weights(np.zeros(1000, dtype=np.int32), np.array([1000]))
    pooled = packed_sums(states, torch.from_numpy(weights), torch.tensor([0, 1000])).numpy() / totals
    assert pooled.dtype == np.float32
    assert pooled.item() == pytest.approx((256 + 999) / 1000)


def test_a_row_without_tokens_is_zeros() -> None:
    pooled = packed_sums(torch.ones(2, 3), torch.ones(2), torch.tensor([0, 2, 2]))
    np.testing.assert_array_equal(pooled, [[2, 2, 2], [0, 0, 0]])


def test_a_token_that_the_vocabulary_lacks_is_not_added() -> None:
    assert excluded_token_ids({"[query]": 4, "w": 5}, ["[query]", "[nowhere]"], [2, 3]) == {2, 3, 4}
