"""Sums weighted with these are what Pooling gives."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.model.cuda.pooling_weights import token_weights
from sluice_server.model.pooling import Pooling

VOCAB = 20


@given(
    st.sampled_from(["mean", "cls", "last"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sets(st.integers(0, VOCAB - 1), max_size=VOCAB),
    st.integers(0, 1000),
)
def test_the_weighted_sum_of_a_row_is_the_row_pooled(
    kind: str, lengths: list[int], excluded: set[int], seed: int
) -> None:
    dice = np.random.default_rng(seed)
    ids = dice.integers(0, VOCAB, sum(lengths), dtype=np.int32)
    states = dice.normal(size=(sum(lengths), 4)).astype(np.float32)
    pooling = Pooling(kind, excluded, VOCAB)
    weights = token_weights(kind, pooling.counts, ids, np.array(lengths, dtype=np.int32))
    starts = np.cumsum(lengths) - lengths
    ends = torch.tensor([0, *np.cumsum(lengths).tolist()])
    expected = pooling.packed(torch.from_numpy(states), torch.from_numpy(ids).long(), ends)
    np.testing.assert_allclose(np.add.reduceat(states * weights[:, None], starts), expected.numpy(), atol=1e-5)


@given(st.sampled_from(["mean", "cls", "last"]), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_each_row_weighs_one_though_all_its_tokens_are_left_out(kind: str, lengths: list[int]) -> None:
    ids = np.zeros(sum(lengths), dtype=np.int32)
    weights = token_weights(kind, np.zeros(VOCAB, dtype=np.float32), ids, np.array(lengths, dtype=np.int32))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(np.add.reduceat(weights, np.cumsum(lengths) - lengths), 1.0, rtol=1e-6)
