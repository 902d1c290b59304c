"""Refusal by latency, as timelines of the P95."""

import pytest
from sluice_server.backpressure import LatencyGate, LatencyWindow


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


def test_a_percentile_of_few_samples_is_unknown_and_old_samples_are_forgotten() -> None:
    window = LatencyWindow(seconds=1.0)
    for place in range(19):
        window.add(now=0.0, latency_ms=float(place))
    assert window.p95_ms(now=0.5) is None
    window.add(now=0.0, latency_ms=19.0)
    assert window.p95_ms(now=0.5) == pytest.approx(18.05)
    assert window.p95_ms(now=1.5) is None
