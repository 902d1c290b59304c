"""What is computed before the gate opens: two batches of each bucket that tell what a token costs from what a batch does."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.backend import Batch, ModelInfo
from sluice_server.warm_up import warm_up_batches

BOUNDARIES, SIZES = (16, 32, 64, 128, 256, 512), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def batches_of(
    layout: str, *, positions: int = 512, sizes: tuple[int, ...] = SIZES, max_tokens: int = 32768
) -> list[Batch]:
    info = ModelInfo("m", None, 4, positions, positions, 100, "float32", "cpu", layout, "mean", {})
    return warm_up_batches(info, BOUNDARIES, sizes, max_tokens)


def lengths_by_bucket(batches: list[Batch]) -> dict[int, list[int]]:
    return {bucket: [one.useful_tokens for one in batches if one.bucket == bucket] for bucket in BOUNDARIES}


def test_packed_a_row_and_about_a_thousand_tokens_of_each_bucket() -> None:
    assert lengths_by_bucket(batches_of("packed")) == {bucket: [bucket, 1024] for bucket in BOUNDARIES}


@pytest.mark.parametrize("sizes", [SIZES, SIZES[3:], (1, 2), (8,), (3, 100)])
def test_padded_no_position_of_either_rectangle_is_a_dummys(sizes: tuple[int, ...]) -> None:
    for batch in batches_of("padded", sizes=sizes):
        assert batch.rows in sizes
        assert batch.useful_tokens == batch.rows * batch.bucket


@pytest.mark.parametrize("sizes", [SIZES, SIZES[3:]])
def test_padded_the_second_rectangle_of_every_bucket_is_larger(sizes: tuple[int, ...]) -> None:
    for first, second in lengths_by_bucket(batches_of("padded", sizes=sizes)).values():
        assert second >= 2 * first


@given(st.integers(512, 40_000), st.sampled_from(["packed", "padded"]))
def test_no_large_batch_goes_beyond_what_traffics_may_have(max_tokens: int, layout: str) -> None:
    found = batches_of(layout, max_tokens=max_tokens)
    for small, large in pairwise(found):
        if small.bucket == large.bucket:
            assert large.useful_tokens <= max_tokens


def test_a_bucket_beyond_the_models_positions_is_as_long_as_they_are_and_the_last() -> None:
    found = batches_of("packed", positions=100)
    assert [one.bucket for one in found] == [16, 16, 32, 32, 64, 64, 128, 128]
    assert found[-1].lengths.max() == 100
