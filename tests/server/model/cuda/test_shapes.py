"""Every batch within the limits has a shape, and filling it up breaks none of the shape's promises."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sluice_server.backend import Batch
from sluice_server.model.cuda import shapes
from sluice_server.model.cuda.shapes import Shape

BOUNDARIES = (16, 32, 64, 128, 256, 512)


@st.composite
def servers(draw: st.DrawFn) -> tuple[int, int, int]:
    """Most tokens, most rows, positions."""
    return draw(st.integers(16, 40_000)), draw(st.integers(1, 600)), draw(st.integers(2, 9000))


@st.composite
def served(draw: st.DrawFn) -> tuple[tuple[Shape, ...], Batch, int]:
    """A server's shapes, a batch within its limits, and the most tokens of one."""
    most_tokens, most_rows, positions = draw(servers())
    dice = np.random.default_rng(draw(st.integers(0, 2**32)))
    longest = draw(st.integers(1, positions))
    lengths = dice.integers(1, longest + 1, draw(st.integers(1, most_rows)), dtype=np.int32)
    lengths = lengths[: max(1, int(np.searchsorted(np.cumsum(lengths), most_tokens, side="right")))]
    batch = Batch(np.zeros(lengths.sum(), dtype=np.int32), lengths, int(lengths.max()), len(lengths))
    return shapes.shapes(most_tokens, most_rows, positions), batch, max(most_tokens, positions)


@given(served())
def test_every_batch_within_the_limits_has_a_shape_of_the_next_budget(
    drawn: tuple[tuple[Shape, ...], Batch, int],
) -> None:
    known, batch, most = drawn
    shape = shapes.fit(known, batch)
    assert shape is not None
    assert shape.tokens == min(one.tokens for one in known if one.tokens >= batch.useful_tokens)
    assert shape.tokens <= most


@given(served())
def test_offsets_keep_the_batchs_rows_and_cover_every_token(drawn: tuple[tuple[Shape, ...], Batch, int]) -> None:
    known, batch, _ = drawn
    shape = shapes.fit(known, batch)
    assert shape is not None
    lengths = np.diff(shapes.offsets(shape, batch.lengths))
    rows = len(batch.lengths)
    assert len(lengths) == shape.rows
    assert lengths[:rows].tolist() == batch.lengths.tolist()
    assert lengths.sum() == shape.tokens


@given(served())
def test_filling_rows_are_short_and_spare_ones_are_empty(drawn: tuple[tuple[Shape, ...], Batch, int]) -> None:
    known, batch, _ = drawn
    shape = shapes.fit(known, batch)
    assert shape is not None
    filling = np.diff(shapes.offsets(shape, batch.lengths))[len(batch.lengths) :]
    used = -(-(shape.tokens - batch.useful_tokens) // 64)
    assert ((filling[:used] > 0) & (filling[:used] <= 64)).all()
    assert not filling[used:].any()


@given(st.integers(1, 3000), st.integers(1, 600))
def test_the_warm_ups_batch_has_all_its_tokens_in_rows_of_one_length(tokens: int, length: int) -> None:
    batch = shapes.full_batch(tokens, length, 100, BOUNDARIES)
    assert batch.useful_tokens == batch.lengths.sum() == tokens
    assert (batch.lengths[:-1] == length).all()
    assert 0 < batch.lengths[-1] <= length
    assert batch.bucket == next((one for one in BOUNDARIES if one >= batch.lengths[0]), 512)


@given(servers())
def test_there_are_few_enough_to_capture_and_they_ascend(server: tuple[int, int, int]) -> None:
    known = shapes.shapes(*server)
    assert len(known) <= 29
    assert list(known) == sorted(set(known))


def test_a_usual_servers_budgets() -> None:
    assert [one.tokens for one in shapes.shapes(32768, 512, 512)] == [
        64, 128, 256, 512, 1024, 1280, 1408, 1664, 1920, 2176, 2560, 2816, 3328, 3840, 4352, 5120, 5888, 6784, 7808,
        8960, 10368, 12032, 13824, 16000, 18432, 21248, 24576, 28416, 32768,
    ]  # fmt: skip


@given(served())
def test_more_rows_than_the_limit_find_no_shape(drawn: tuple[tuple[Shape, ...], Batch, int]) -> None:
    known, _, _ = drawn
    rows = max(one.rows for one in known) + 1
    assume(rows <= known[-1].tokens)
    lengths = np.ones(rows, dtype=np.int32)
    assert shapes.fit(known, Batch(np.zeros(rows, dtype=np.int32), lengths, 1, rows)) is None


@pytest.mark.parametrize("lengths", [[3], [2, 5, 1]])
def test_an_exact_shape_fills_nothing(lengths: list[int]) -> None:
    batch = Batch(np.zeros(sum(lengths), dtype=np.int32), np.array(lengths, dtype=np.int32), 8, len(lengths))
    shape = shapes.exactly(batch)
    assert shapes.offsets(shape, batch.lengths).tolist() == [0, *np.cumsum(lengths).tolist()]
