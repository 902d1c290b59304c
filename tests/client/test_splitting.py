"""Inputs of any number become parts within the service's limits."""

from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice.v1 import embeddings_pb2 as pb
from sluice_client import EmbedOptions
from sluice_client.splitting import PartSize, ServiceLimits, limits_of, split

OPTIONS = EmbedOptions()


def size(max_inputs: int = 100, tokens: int = 10_000, max_input_tokens: int = 256) -> PartSize:
    return PartSize(max_inputs, tokens, tokens, max_input_tokens)


def weight(text: str) -> int:
    return min(256, 3 + int(len(text.encode()) / 3.5))


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=50),
    max_inputs=st.integers(1, 9),
    tokens=st.integers(1, 60),
)
def test_every_text_travels_once_in_order_and_within_the_limits(texts: list[str], max_inputs: int, tokens: int) -> None:
    parts = list(split(texts, OPTIONS, size(max_inputs, tokens)))
    assert [t for p in parts for t in p.request.texts.values] == texts
    assert [p.index for p in parts] == list(range(len(parts)))
    assert [i for p in parts for i in p.positions] == list(range(len(texts)))
    for part in parts:
        assert 1 <= len(part.inputs) <= max_inputs
        assert sum(map(weight, part.inputs)) <= tokens or len(part.inputs) == 1


@given(rows=st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8), min_size=1, max_size=20))
def test_rows_of_ids_travel_ragged_and_count_exactly(rows: list[list[int]]) -> None:
    parts = list(split(rows, OPTIONS, size(7, 16)))
    seen = []
    for part in parts:
        ids = np.frombuffer(part.request.token_ids.ids, dtype="<i4")
        ends = np.cumsum(np.frombuffer(part.request.token_ids.lengths, dtype="<i4"))
        assert ids.size <= 16
        seen += [row.tolist() for row in np.split(ids, ends[:-1])]
    assert seen == rows


def test_parts_are_as_full_as_they_may_be() -> None:
    assert [len(p.inputs) for p in split(["a"] * 10, OPTIONS, size(4))] == [4, 4, 2]
    assert [len(p.inputs) for p in split([[1, 2, 3]] * 5, OPTIONS, size(tokens=6))] == [2, 2, 1]


def test_an_input_without_end_is_read_no_further_than_the_part_that_is_asked_for() -> None:
    numbers = count()
    parts = split((str(n) for n in numbers), OPTIONS, size(4))
    assert [p.first for p in islice(parts, 3)] == [0, 4, 8]
    assert next(numbers) == 12


def test_a_text_counts_no_more_than_the_service_keeps_of_it() -> None:
    assert [len(p.inputs) for p in split(["x" * 10_000] * 4, OPTIONS, size(tokens=512))] == [2, 2]


@pytest.mark.parametrize(
    ("named", "has_default", "sizes"),
    [("query", False, [4, 4, 2]), (None, True, [4, 4, 2]), (None, False, [10]), ("", True, [10])],
)
def test_with_a_prompt_every_text_counts_as_the_longest_that_it_can_be(
    named: str | None, sizes: list[int], *, has_default: bool
) -> None:
    limits = ServiceLimits(100, 1000, max_input_tokens=250, dimension=4, has_default_prompt=has_default)
    whole = PartSize.within(limits, max_inputs=64, max_tokens=4096)
    assert [len(p.inputs) for p in split(["a"] * 10, EmbedOptions(prompt_name=named), whole)] == sizes


def test_the_smaller_of_what_the_client_wants_and_the_service_takes_counts() -> None:
    limits = ServiceLimits(max_inputs=32, max_tokens=1000, max_input_tokens=250, dimension=4)
    assert PartSize.within(limits, max_inputs=64, max_tokens=4096) == PartSize(32, 250, 1000, 250)
    assert PartSize.within(limits, max_inputs=8, max_tokens=100) == PartSize(8, 100, 100, 250)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=300), min_size=1, max_size=40))
def test_texts_of_a_part_are_never_more_tokens_than_the_service_takes(texts: list[str]) -> None:
    limits = ServiceLimits(max_inputs=2048, max_tokens=1024, max_input_tokens=256, dimension=4)
    for part in split(texts, OPTIONS, PartSize.within(limits, max_inputs=64, max_tokens=4096)):
        # At worst every byte is a token; two are added.
        assert sum(min(256, len(text.encode()) + 2) for text in part.inputs) <= limits.max_tokens


@pytest.mark.parametrize(
    ("mixed", "said"),
    [
        (["a", "b", [1]], "input 2 is token ids, the first was a text; expected one kind"),
        ([[1], "a"], "input 1 is a text, the first was token ids; expected one kind"),
    ],
)
def test_texts_and_ids_do_not_mix(mixed: list[object], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        list(split(mixed, OPTIONS, size(1)))


def test_a_service_that_does_not_know_its_limits_yet_is_told_from_one_that_has_none() -> None:
    with pytest.raises(ValueError, match="does not know its limits yet"):
        limits_of(pb.GetInfoResponse(max_inputs_per_request=9, max_tokens_per_request=9))
