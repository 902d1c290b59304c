"""What is done to the crowd, one after the other, and the figures of each."""

import itertools
import os
import signal
import time
from collections import Counter

from bench.crowd import control_plane, progress
from bench.crowd.crowd import HOLD_SECONDS, Crowd, Json

_HOT = {"estimated_drain_time_ms": 1800.0, "queued_tokens": 21_600}
_OUTAGE_SECONDS = 10.0


def steady(crowd: Crowd, seconds: int) -> Json:
    """Nothing happens: what it costs, and how regularly every pod is asked."""
    progress.show(f"steady state, {seconds} s")
    crowd.health.asked_at()
    with crowd.measured() as figures:
        time.sleep(seconds)
    return figures | _regularity(crowd.health.asked_at(), seconds)


def one_pod(crowd: Crowd, _: int) -> Json:
    """One pod is overloaded, and well again."""
    pod, address = next(iter(crowd.gates.addresses.items()))
    crowd.health.asked_at()
    began = time.monotonic()
    crowd.health.say([address], **_HOT)
    progress.until(lambda: pod in crowd.gates.closed(), 30)
    closed_at = crowd.gates.changes[-1][0]
    polls = sum(began < at < closed_at for at in crowd.health.asked_at()[address])
    crowd.health.say([address])
    progress.until(lambda: not crowd.gates.closed(), HOLD_SECONDS + 30)
    crowd.until_quiet()
    return {"polls_until_closed": polls, "seconds_until_closed": round(closed_at - began, 2)}


def storm(crowd: Crowd, _: int) -> Json:
    """A third of all pods at the same moment, as many of each service; then all are well again."""
    time.sleep(HOLD_SECONDS)
    of_service: dict[str, list[str]] = {}
    for pod, service in crowd.gates.services.items():
        of_service.setdefault(service, []).append(pod)
    hit = {pod for pods in of_service.values() for pod in sorted(pods)[: len(pods) // 3]}
    addresses = [crowd.gates.addresses[pod] for pod in hit]
    progress.show(f"storm: {len(hit)} of {crowd.pods} pods")
    start, began = len(crowd.gates.changes), time.monotonic()
    with crowd.measured() as figures:
        crowd.health.say(addresses, **_HOT)
        progress.until(lambda: crowd.gates.closed() >= hit, 300, lambda: f"{len(crowd.gates.closed())} closed")
    closing = crowd.gates.changes[start:]
    figures |= {
        "pods": len(hit),
        "seconds_until_all_are_closed": round(closing[-1][0] - began, 1),
        "most_gate_writes_in_a_second": max(Counter(crowd.gates.written[start:]).values()),
        "most_seen_in_a_second": most_in_a_second([at for at, _, _ in closing]),
        "closed_that_were_well": len(crowd.gates.closed() - hit),
        "most_closed_of_a_service": max(Counter(crowd.gates.services[p] for p in crowd.gates.closed()).values()),
    }
    time.sleep(HOLD_SECONDS)
    start, began = len(crowd.gates.changes), time.monotonic()
    crowd.health.say(addresses)
    progress.until(lambda: not crowd.gates.closed(), 300, lambda: f"{len(crowd.gates.closed())} closed")
    opening = crowd.gates.changes[start:]
    return figures | {
        "seconds_until_all_are_open_again": round(opening[-1][0] - began, 1),
        "most_openings_in_a_second": max(Counter(crowd.gates.written[start:]).values()),
        "seconds_from_then_to_the_last_write": crowd.until_quiet(),
        "needless_changes": len(closing) + len(opening) - 2 * len(hit),
    }


def api_server(crowd: Crowd, _: int) -> Json:
    """The API server is killed, stays away, and comes back while a pod is overloaded."""
    time.sleep(HOLD_SECONDS)
    pod, address = next(iter(crowd.gates.addresses.items()))
    pid = control_plane.pids(crowd.state)[control_plane.API_SERVER]
    start = len(crowd.gates.changes)
    crowd.operator.forget_peak()
    os.kill(pid, signal.SIGKILL)
    crowd.health.say([address], **_HOT)
    time.sleep(_OUTAGE_SECONDS)
    control_plane.up(crowd.state)
    began = time.monotonic()
    progress.until(lambda: pod in crowd.gates.closed(), 60)
    figures = {"outage_seconds": _OUTAGE_SECONDS, "seconds_until_it_acts": round(time.monotonic() - began, 1)}
    crowd.health.say([address])
    progress.until(lambda: not crowd.gates.closed(), HOLD_SECONDS + 30)
    return figures | {
        "seconds_until_quiet_again": crowd.until_quiet(),
        "peak_rss_mib": crowd.operator.rss_mib(peak=True),
        "needless_changes": len(crowd.gates.changes) - start - 2,
    }


def most_in_a_second(times: list[float]) -> int:
    """The most that lie in any window of one second."""
    ordered = sorted(times)
    return max((sum(at <= later < at + 1 for later in ordered[i:]) for i, at in enumerate(ordered)), default=0)


def _regularity(asked_at: dict[str, list[float]], seconds: float) -> Json:
    gaps = sorted(b - a for times in asked_at.values() for a, b in itertools.pairwise(times))
    return {
        "polls_per_second": round(sum(map(len, asked_at.values())) / seconds, 1),
        "pods_asked": len(asked_at),
        **{f"poll_gap_p{p}": round(gaps[len(gaps) * p // 100], 3) for p in (1, 50, 99)},
        "poll_gap_longest": round(gaps[-1], 3),
    }
