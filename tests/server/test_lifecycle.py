"""Where in its life the server is, and what callers hear then."""

import pytest
from sluice_server.errors import DrainingError, NotReadyError, ServerFailedError
from sluice_server.health import Phase
from sluice_server.lifecycle import Lifecycle


def test_a_watcher_hears_the_phase_now_and_every_change() -> None:
    lifecycle, heard = Lifecycle(), list[str]()
    lifecycle.watch(lambda phase: heard.append(phase.name))
    lifecycle.enter(Phase("loading"))
    lifecycle.enter(Phase("serving"))
    assert heard == ["starting", "loading", "serving"]


def test_work_is_taken_from_serving_until_accepting_stops() -> None:
    lifecycle = Lifecycle()
    with pytest.raises(NotReadyError, match="not ready yet: starting"):
        lifecycle.check_accepts()
    lifecycle.enter(Phase("serving"))
    lifecycle.check_accepts()
    lifecycle.begin_drain("the node goes away")
    lifecycle.check_accepts()
    lifecycle.stop_accepting()
    with pytest.raises(DrainingError):
        lifecycle.check_accepts()


def test_a_failed_server_stays_failed_and_says_why() -> None:
    lifecycle = Lifecycle()
    lifecycle.enter(Phase("failed", "no weights"))
    lifecycle.enter(Phase("serving"))
    assert not lifecycle.has_served
    with pytest.raises(ServerFailedError, match="no weights"):
        lifecycle.check_accepts()


def test_a_server_that_drains_has_served() -> None:
    lifecycle = Lifecycle()
    lifecycle.enter(Phase("serving"))
    lifecycle.begin_drain("the node goes away")
    assert lifecycle.has_served


def test_a_server_told_to_end_while_it_loads_does_not_go_back_to_loading() -> None:
    lifecycle = Lifecycle()
    lifecycle.enter(Phase("downloading"))
    lifecycle.begin_drain("the node goes away")
    lifecycle.enter(Phase("loading"))
    lifecycle.enter(Phase("serving"))
    assert lifecycle.phase == Phase("draining", "the node goes away")
    assert not lifecycle.has_served
