"""Inputs become requests, and replies arrays again."""

import numpy as np
import pytest
from sluice.v1 import embeddings_pb2 as pb
from sluice_client import EmbedOptions, InvalidRequestError
from sluice_client.requests import check_input, decode, encode


def test_options_reach_the_wire() -> None:
    options = EmbedOptions("query", "start", dimensions=8, normalize=False, output_dtype="int8", priority="batch")
    request = encode(["a"], options)
    assert (request.prompt_name, request.truncate, request.dimensions) == ("query", pb.TRUNCATE_START, 8)
    assert (request.normalize, request.output_dtype, request.priority) == (
        False,
        pb.DATA_TYPE_INT8,
        pb.PRIORITY_BATCH,
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"truncate": "middle"}, "truncate='middle': expected one of end, start, none"),
        ({"output_dtype": "float64"}, "output_dtype='float64': expected one of float32, float16, int8"),
        ({"priority": None}, "priority=None: expected one of interactive, batch"),
        ({"dimensions": 0}, "dimensions=0: expected at least 1, or None for all"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EmbedOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "row", [[1, 2, 3], (1, 2, 3), range(1, 4), np.array([1, 2, 3]), np.array([1, 2, 3], dtype=np.uint16)]
)
def test_a_row_of_ids_may_be_any_sequence_of_whole_numbers(row: object) -> None:
    checked = check_input(row, 0)
    assert isinstance(checked, np.ndarray)
    assert checked.dtype == np.int32
    assert checked.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (3.5, "input 7 is a float; expected a text or a sequence of token ids"),
        (None, "input 7 is a NoneType; expected"),
        (b"ab", "input 7 is a bytes; expected"),
        ([1.5], r"input 7 is of type float64 and shape \(1,\); expected a text or one row of token ids"),
        ([[1, 2]], r"of type int64 and shape \(1, 2\)"),
        ([True], "of type bool"),
        (np.int64(5), r"of type int64 and shape \(\)"),
    ],
)
def test_an_input_of_another_kind_is_named(one: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        check_input(one, 7)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ([], "input 7 has no tokens; expected at least 1"),
        ([5, -1], "input 7 holds the token id -1; expected 0 to 2147483647"),
        ([2**40], "input 7 holds the token id 1099511627776"),
        ("a \ud800 b", "input 7 is not Unicode text: .*surrogates not allowed"),
    ],
)
def test_an_input_that_can_never_be_served_is_an_error_of_the_clients_own(one: object, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as refused:
        check_input(one, 7)
    assert (refused.value.inputs, refused.value.code) == (range(7, 8), None)


def reply(data: bytes, shape: list[int], dtype: int) -> pb.EmbedResponse:
    return pb.EmbedResponse(embeddings=pb.Tensor(data=data, shape=shape, dtype=dtype))


def test_a_reply_becomes_an_array_of_its_shape_and_dtype() -> None:
    rows = decode(reply(np.arange(6, dtype="<f2").tobytes(), [2, 3], pb.DATA_TYPE_FLOAT16), 2)
    assert rows.dtype == np.float16
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (reply(b"", [1, 0], 99), "dtype 99"),
        (reply(bytes(24), [3, 2], pb.DATA_TYPE_FLOAT32), "2 inputs were asked"),
        (reply(bytes(16), [2], pb.DATA_TYPE_FLOAT32), r"shape \(2,\)"),
        (reply(bytes(15), [2, 2], pb.DATA_TYPE_FLOAT32), "holds 15 bytes"),
    ],
)
def test_a_reply_that_is_not_what_was_asked_is_refused(bad: pb.EmbedResponse, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode(bad, 2)
