"""What a batch looks like to the device."""

import numpy as np
from sluice_server.backend import Batch
from sluice_server.model.cuda import staging
from sluice_server.model.cuda.shapes import Shape

SHAPE = Shape(tokens=8, rows=5)
BATCH = Batch(np.array([5, 6, 7], dtype=np.int32), np.array([2, 1], dtype=np.int32), 2, 2)


def staged() -> tuple[np.ndarray, staging.Sections]:
    block = np.full(60, -1, dtype=np.int32)
    weights = np.array([0.25, 0.75, 1.0], dtype=np.float32)
    return block, staging.fill(block, SHAPE, BATCH, weights, pad_id=9, first_position=2)


def test_ids_are_filled_up_with_padding() -> None:
    block, parts = staged()
    assert block[parts.ids].tolist() == [5, 6, 7, 9, 9, 9, 9, 9]


def test_positions_start_anew_in_each_row_filling_ones_included() -> None:
    block, parts = staged()
    assert block[parts.positions].tolist() == [2, 3, 2, 2, 3, 4, 5, 6]


def test_filling_tokens_weigh_nothing() -> None:
    block, parts = staged()
    assert block[parts.weights].view(np.float32).tolist() == [0.25, 0.75, 1.0, 0, 0, 0, 0, 0]


def test_offsets_are_as_many_as_the_shape_has_rows() -> None:
    block, parts = staged()
    assert block[parts.offsets].tolist() == [0, 2, 3, 8, 8, 8]


def test_each_token_knows_where_its_row_starts_and_ends() -> None:
    block, parts = staged()
    assert block[parts.bounds].reshape(2, -1).tolist() == [[0, 0, 2, 3, 3, 3, 3, 3], [2, 2, 3, 8, 8, 8, 8, 8]]


def test_nothing_is_written_behind_the_parts() -> None:
    block, parts = staged()
    assert parts.size == 5 * 8 + 6
    assert (block[parts.size :] == -1).all()
