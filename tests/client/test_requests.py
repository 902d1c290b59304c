"""Inputs of any number become requests of a bounded size, and replies one array again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice.v1 import embeddings_pb2 as pb
from sluice_client.requests import EmbedOptions, decode, join, split

OPTIONS = EmbedOptions()


@given(
    texts=st.lists(st.text(max_size=20), max_size=50),
    max_inputs=st.integers(1, 9),
    max_bytes=st.integers(1, 60),
)
def test_every_text_travels_once_and_in_order(texts: list[str], max_inputs: int, max_bytes: int) -> None:
    parts = list(split(texts, OPTIONS, max_inputs=max_inputs, max_bytes=max_bytes))
    assert [t for p in parts for t in p.texts.values] == texts
    for part in parts:
        size = sum(len(t.encode()) for t in part.texts.values)
        assert 1 <= len(part.texts.values) <= max_inputs
        assert size <= max_bytes or len(part.texts.values) == 1


@given(rows=st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8), min_size=1, max_size=20))
def test_rows_of_ids_travel_ragged(rows: list[list[int]]) -> None:
    parts = list(split(rows, OPTIONS, max_inputs=7, max_bytes=1000))
    seen = []
    for part in parts:
        ids = np.frombuffer(part.token_ids.ids, dtype="<i4")
        ends = np.cumsum(np.frombuffer(part.token_ids.lengths, dtype="<i4"))
        seen += [row.tolist() for row in np.split(ids, ends[:-1])]
    assert seen == rows


def test_options_reach_the_wire() -> None:
    options = EmbedOptions("query", "start", dimensions=8, normalize=False, output_dtype="int8", priority="batch")
    (request,) = split(["a"], options, max_inputs=1, max_bytes=9)
    assert (request.prompt_name, request.truncate, request.dimensions) == ("query", pb.TRUNCATE_START, 8)
    assert (request.normalize, request.output_dtype, request.priority) == (
        False,
        pb.DATA_TYPE_INT8,
        pb.PRIORITY_BATCH,
    )


def test_an_input_of_another_kind_is_named() -> None:
    with pytest.raises(TypeError, match="input 1 is a float; expected a text or a sequence of token ids"):
        list(split(["a", 3.5], OPTIONS, max_inputs=9, max_bytes=99))  # type: ignore[list-item]


def test_a_reply_becomes_an_array_of_its_shape_and_dtype() -> None:
    tensor = pb.Tensor(data=np.arange(6, dtype="<f2").tobytes(), shape=[2, 3], dtype=pb.DATA_TYPE_FLOAT16)
    rows = decode(pb.EmbedResponse(embeddings=tensor))
    assert rows.dtype == np.float16
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert join([rows, rows]).shape == (4, 3)


def test_nothing_asked_is_an_empty_array() -> None:
    assert join([]).shape == (0, 0)
