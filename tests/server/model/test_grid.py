"""Few shapes, little waste."""

from hypothesis import given
from hypothesis import strategies as st
from sluice_server.model.grid import round_up, sizes


@given(tokens=st.integers(1, 200_000))
def test_a_size_holds_the_tokens_and_wastes_a_thirty_second_part_at_most(tokens: int) -> None:
    size = round_up(tokens)
    assert size >= tokens
    assert size - tokens < max(8, tokens / 32)
    assert round_up(size) == size


def test_all_batches_up_to_four_thousand_tokens_share_a_few_shapes() -> None:
    assert len({round_up(tokens) for tokens in range(1, 4097)}) < 170


def test_every_size_is_among_them_once() -> None:
    assert list(sizes(4096)) == sorted({round_up(tokens) for tokens in range(1, 4097)})
