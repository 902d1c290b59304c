"""Large bodies are counted before they are read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.errors import InvalidRequestError
from sluice_server.http import counting
from sluice_server.http.counting import check_counts
from sluice_server.validation import RequestLimits

LIMITS = RequestLimits(max_inputs=2048, max_tokens=65_536)
UNREADABLE_END = b"!"


def body_of(given: object) -> bytes:
    return json.dumps({"model": "any", "input": given, "user": 'somebody "else", or more'}).encode()


@pytest.mark.parametrize("spaces", [b"", b" ", b"\n    "])
def test_a_flat_list_of_too_many_ids_is_refused_without_being_read(spaces: bytes) -> None:
    body = b'{"input":' + spaces + b"[" + spaces + b",".join([b"12"] * 100_000) + UNREADABLE_END
    with pytest.raises(InvalidRequestError, match="about 100000 token ids in one request; expected at most 65536"):
        check_counts(body, LIMITS)


def test_so_are_lists_of_ids_that_are_too_many_together() -> None:
    body = body_of([[7] * 400] * 1000)
    with pytest.raises(InvalidRequestError, match=r"about 40000\d token ids in one request; expected at most 65536"):
        check_counts(body, LIMITS)


def test_and_too_many_texts() -> None:
    body = body_of(["a text, of a word"] * 20_000)
    with pytest.raises(InvalidRequestError, match=r"about 2000\d texts in one request; expected at most 2048"):
        check_counts(body, LIMITS)


def test_as_many_ids_as_are_allowed_pass_however_they_are_written() -> None:
    for indent in (None, 8):
        check_counts(json.dumps({"input": [[30_000] * 256] * 256}, indent=indent).encode(), LIMITS)


def test_texts_may_hold_any_number_of_commas_and_quotes() -> None:
    check_counts(body_of("1,2," * 200_000), LIMITS)
    check_counts(body_of(['"quoted", ' * 200] * 2048), LIMITS)
    check_counts(body_of(['"input": [1, 2, ' * 20_000]), LIMITS)


@given(st.lists(st.text(alphabet='a"\\,é[', max_size=60), min_size=1, max_size=40))
def test_no_texts_that_are_allowed_are_refused_whatever_they_hold(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "SMALL_BYTES", 0)
        patch.setattr(counting, "_OTHER_VALUES", 5)
        check_counts(json.dumps({"input": texts}).encode(), RequestLimits(max_inputs=40, max_tokens=10))
