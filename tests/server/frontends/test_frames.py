"""Whatever is said comes out as it went in, however it is cut on the way."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server import errors
from sluice_server.backend import ModelInfo
from sluice_server.engine_port import Computation
from sluice_server.frontends import frames
from sluice_server.frontends.frames import Frame, FrameReader, FramingError, Kind
from sluice_server.frontends.setup import FrontEndConfig, State, read_config, read_state
from sluice_server.observability.observations import Observations, Refused
from sluice_server.postprocess import unit
from sluice_server.requests import NO_DEADLINE, Computed, Priority, Terms, TokenRows
from sluice_server.security import TlsFiles
from sluice_server.validation import RequestLimits

milliseconds = st.floats(0, 1e9)
terms = st.builds(
    Terms,
    st.sampled_from(Priority),
    st.floats(allow_nan=False) | st.just(NO_DEADLINE),
    st.booleans(),
    st.none() | milliseconds,
)
calls = st.integers(0, 2**64 - 1)
sentences = st.text(max_size=50)


def joined(parts: object) -> bytes:
    return parts if isinstance(parts, bytes) else b"".join(parts)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from(Kind), calls, st.binary(max_size=300)), max_size=10), st.data())
def test_frames_are_whole_again_wherever_the_stream_was_cut(
    said: list[tuple[Kind, int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frames.head(kind, call, [body]) + body for kind, call, body in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader, heard = FrameReader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard.extend(reader.feed(stream[begin:end]))
    assert heard == [Frame(*one) for one in said]


def test_a_body_larger_than_any_of_ours_is_a_mistake() -> None:
    with pytest.raises(FramingError, match="expected at most"):
        list(FrameReader().feed(b"\xff" * 16))


@given(st.integers(0, 2**32 - 1), terms)
def test_a_reservation_keeps_its_terms(tokens: int, asked: Terms) -> None:
    assert frames.read_reservation(frames.reservation(tokens, asked)) == (tokens, asked)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), terms)
def test_rows_keep_their_ids_lengths_and_terms(lengths: list[int], asked: Terms) -> None:
    rows = TokenRows(np.arange(sum(lengths), dtype=np.int32), np.array(lengths, dtype=np.int32))
    heard, heard_terms = frames.read_rows(joined(frames.rows(rows, asked)))
    assert heard_terms == asked
    assert heard.token_ids.tolist() == rows.token_ids.tolist()
    assert heard.lengths.tolist() == lengths


@given(st.integers(1, 9), st.integers(1, 9), milliseconds, milliseconds, st.none() | milliseconds)
def test_an_answer_keeps_its_rows_and_times(
    count: int, dimension: int, queue_ms: float, compute_ms: float, drain_ms: float | None
) -> None:
    batch = np.random.default_rng(count).standard_normal((count + 3, dimension)).astype(np.float32)
    pooled = batch[2 : 2 + count]
    told = Computation(Computed(pooled, unit(pooled)), queue_ms, compute_ms, drain_ms)
    heard = frames.read_answer(joined(frames.answer(told)))
    assert np.array_equal(heard.computed.pooled, pooled)
    assert np.array_equal(heard.computed.unit, unit(pooled))
    assert (heard.queue_ms, heard.compute_ms, heard.drain_ms) == (queue_ms, compute_ms, drain_ms)


def every_error(kind: type[errors.SluiceError] = errors.SluiceError) -> list[type[errors.SluiceError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in every_error(below))]


def test_every_error_of_the_domain_can_cross() -> None:
    assert {*every_error()} == {*frames.ERRORS}


@given(st.sampled_from(frames.ERRORS), sentences, st.none() | st.integers(0, 2**31 - 1), st.text("a_", max_size=20))
def test_an_error_keeps_all_that_it_says(
    kind: type[errors.SluiceError], sentence: str, retry_after_ms: int | None, reason: str
) -> None:
    if kind is errors.OverloadedError:
        told: errors.SluiceError = errors.OverloadedError(sentence, retry_after_ms, reason)
    else:
        told = kind(sentence)
    heard = frames.read_error(frames.error(told))
    assert type(heard) is kind
    assert str(heard) == sentence
    assert getattr(heard, "retry_after_ms", None) == getattr(told, "retry_after_ms", None)
    assert getattr(heard, "reason", None) == getattr(told, "reason", None)


counts = st.integers(1, 10**9)


@given(
    st.dictionaries(sentences, counts, max_size=4),
    st.dictionaries(st.tuples(sentences, sentences), counts, max_size=4),
    st.lists(st.tuples(*[milliseconds] * 4), max_size=5),
    st.dictionaries(sentences, st.builds(Refused, counts, counts), max_size=3),
)
def test_observations_add_up_to_the_same(began: dict, ended: dict, answers: list, rejected: dict) -> None:
    times = np.array(answers, dtype=float).reshape(-1, 4)
    told = Observations(began, ended, times, rejected)  # type: ignore[arg-type]
    heard = frames.read_observations(joined(frames.observations(told)))
    assert (heard.began, heard.ended, heard.rejected) == (began, ended, rejected)
    assert np.array_equal(heard.answers, told.answers)


@pytest.mark.parametrize(
    "read",
    [frames.read_reservation, frames.read_rows, frames.read_answer, frames.read_error, frames.read_observations],
)
def test_a_body_that_is_too_short_is_a_mistake_that_is_named(read: object) -> None:
    with pytest.raises(FramingError, match="too short"):
        read(b"\x01")  # type: ignore[operator]


INFO = ModelInfo("m", None, 384, 256, 512, 30_000, "float32", "cpu", "packed", "mean", {"query": "query: "})


@pytest.mark.parametrize("state", [State(), State(is_serving=True, info=INFO, fingerprint="f")])
def test_a_state_is_read_as_it_was(state: State) -> None:
    assert read_state(state.encoded()) == state


@pytest.mark.parametrize("tls", [None, TlsFiles(b"chain", b"k\xc3\xa4y", None), TlsFiles(b"chain", b"key", b"ca")])
def test_a_config_is_read_as_it_was(tls: TlsFiles | None) -> None:
    config = FrontEndConfig("[::]:1", RequestLimits(3, 100), 2, 1 << 20, 300, tls, "a secret", "INFO", "json")
    assert read_config(config.encoded()) == config


def test_an_unknown_drain_time_stays_unknown() -> None:
    rows = np.ones((1, 2), np.float32)
    body = joined(frames.answer(Computation(Computed(rows, rows), 0.0, 0.0, None)))
    assert math.isnan(np.frombuffer(body, "<f8", 1, 16)[0])
