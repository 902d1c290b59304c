"""Refusal by latency, as timelines of the P95."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_server.backpressure import LatencyGate, LatencyWindow
from sluice_server.requests import Priority


def refused(gate: LatencyGate, p95_ms: float | None, times: int = 8) -> int:
    return sum(gate.refuses(p95_ms) for _ in range(times))


def new_gate() -> LatencyGate:
    return LatencyGate(soft_p95_ms=100, hard_p95_ms=200)


@pytest.mark.parametrize(("p95_ms", "of_eight"), [(None, 0), (100, 0), (101, 2), (200, 2), (201, 8)])
def test_above_the_soft_limit_a_quarter_is_refused_and_above_the_hard_one_all(
    p95_ms: float | None, of_eight: int
) -> None:
    assert refused(new_gate(), p95_ms) == of_eight


def test_a_closed_stage_opens_again_only_clearly_below_its_limit() -> None:
    gate = new_gate()
    stages = []
    for p95_ms in (250, 170, 159, 90, 79, 90):
        gate.refuses(p95_ms)
        stages.append(gate.stage)
    assert stages == ["hard", "hard", "soft", "soft", "open", "open"]


def test_unknown_latency_opens_the_gate() -> None:
    gate = new_gate()
    gate.refuses(250)
    assert refused(gate, None) == 0


def test_between_the_limits_batch_work_is_refused_and_no_less_of_the_rest() -> None:
    gate = new_gate()
    assert all(gate.refuses(150, Priority.BATCH) for _ in range(8))
    assert refused(gate, 150) == 2


def test_a_percentile_of_few_samples_is_unknown() -> None:
    window = LatencyWindow(seconds=1.0)
    for place in range(19):
        window.add(now=0.0, latency_ms=float(place))
    assert window.p95_ms(now=0.5) is None
    window.add(now=0.0, latency_ms=19.0)
    assert window.p95_ms(now=0.5) == pytest.approx(18.05)


def test_a_server_that_answers_nine_times_a_second_knows_its_latency() -> None:
    window = LatencyWindow(seconds=1.0)
    for place in range(40):
        window.add(now=place / 9, latency_ms=300.0)
    assert window.p95_ms(now=40 / 9) == pytest.approx(300.0)


def test_what_is_older_than_ten_windows_is_forgotten() -> None:
    window = LatencyWindow(seconds=1.0)
    for _ in range(20):
        window.add(now=0.0, latency_ms=300.0)
    assert window.p95_ms(now=10.0) == pytest.approx(300.0)
    assert window.p95_ms(now=10.1) is None


SAMPLES = st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 1e4)), min_size=1, max_size=300)


@given(SAMPLES)
def test_the_percentile_is_that_of_the_windows_samples_however_they_come_and_go(
    samples: list[tuple[float, float]],
) -> None:
    window, now, kept = LatencyWindow(seconds=1.0), 0.0, []
    for gap, latency_ms in samples:
        now += gap
        window.add(now, latency_ms)
        before = [*kept, (now, latency_ms)]
        last = {id(one) for one in before[-20:]}
        kept = [one for one in before if one[0] >= now - (10.0 if id(one) in last else 1.0)]
        p95_ms = window.p95_ms(now)
        if len(kept) < 20:
            assert p95_ms is None
        else:
            assert p95_ms == pytest.approx(np.percentile([of for _, of in kept], 95))


def test_a_window_holds_the_last_four_thousand_and_no_more() -> None:
    window = LatencyWindow(seconds=1.0)
    for place in range(5000):
        window.add(now=0.0, latency_ms=float(place))
    assert window.p95_ms(now=0.0) == pytest.approx(np.percentile(np.arange(5000 - 4096, 5000), 95))
