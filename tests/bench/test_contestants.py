"""A turn's figures, from the answers that came."""

import pytest

from bench.callers import Reply
from bench.contestants import Cell, between, summary
from bench.load import Answer


def answer(sent_at: float, seconds: float, code: str = "OK", tokens: int = 10) -> Answer:
    return Answer(sent_at, seconds, tokens, Reply(code))


def test_only_good_answers_count_and_time_runs_until_the_last_one() -> None:
    turn = summary([answer(1.0, 0.5), answer(2.0, 3.0, "RESOURCE_EXHAUSTED")], Cell("ids-1", "products"), "A", 0)
    assert (turn.tokens, turn.requests, turn.seconds) == (10, 1, 4.0)
    assert turn.codes == {"OK": 1, "RESOURCE_EXHAUSTED": 1}
    assert turn.latencies_ms == (500.0, 500.0, 500.0)
    assert turn.goodput is None


def test_in_an_open_loop_late_answers_are_no_goodput_and_time_is_that_of_the_load() -> None:
    cell = Cell("open", "products", per_second=2.0, deadline_seconds=0.25)
    turn = summary([answer(1.0, 0.2), answer(1.5, 0.3), answer(2.0, 0.1), answer(2.5, 9.0)], cell, "A", 0)
    assert turn.seconds == pytest.approx(2.0)
    assert turn.goodput == pytest.approx(1.0)


def test_nobody_answered_is_no_latency_and_no_tokens() -> None:
    turn = summary([], Cell("ids-1", "products"), "A", 0)
    assert (turn.tokens_per_second, turn.latencies_ms, turn.codes) == (0.0, None, {})


def test_of_a_load_that_goes_on_what_came_between_two_moments_counts() -> None:
    answers = [answer(0.0, 0.9), answer(0.5, 0.5), answer(0.5, 1.4), answer(1.5, 0.5), answer(1.9, 5.0)]
    inside = between(answers, 1.0, 2.0)
    assert inside == [answer(0.5, 0.5), answer(0.5, 1.4)]
    turn = summary(inside, Cell("clients", "products", lead_seconds=1.0), "A", 0, seconds=1.0)
    assert (turn.tokens_per_second, turn.requests_per_second) == (20.0, 2.0)
