"""A daemon is known by its pid and its start time, so that no other process is ever stopped in its place."""

import json
import os
import subprocess

import pytest

from dev.cluster.processes import Daemon, Processes, parse_start_time, start_time
from dev.console import DevError


def sleeper(name="sleeper", **options):
    return Daemon(name, ["sleep", "60"], lambda: True, **options)


@pytest.fixture
def processes(tmp_path):
    cluster = Processes(tmp_path)
    yield cluster
    cluster.stop(cluster.names())


def test_the_start_time_is_found_behind_a_name_with_spaces_and_brackets():
    stat = "42 (a) R (b c) S 1 " + " ".join(["0"] * 17) + " 12345 0"
    assert parse_start_time(stat) == 12345


def test_a_zombie_does_not_run():
    assert parse_start_time("42 (sleep) Z 1 " + " ".join(["0"] * 17) + " 12345 0") is None


def test_a_zombie_whose_threads_still_end_runs():
    assert parse_start_time("42 (sleep) Z 1 " + " ".join([*["0"] * 15, "7", "0"]) + " 12345 0") == 12345


def test_a_pid_that_is_not_there_has_no_start_time():
    assert start_time(2**22 + 1) is None


def test_a_started_daemon_is_recorded_and_outlives_its_starter_in_a_session_of_its_own(processes):
    processes.start(sleeper())
    found = processes.identity("sleeper")
    assert found is not None
    assert os.getsid(found.pid) == found.pid


def test_starting_a_daemon_twice_keeps_the_process(processes):
    processes.start(sleeper())
    first = processes.identity("sleeper")
    processes.start(sleeper())
    assert processes.identity("sleeper") == first


@pytest.mark.parametrize("change", ["command", "environment", "file"])
def test_a_daemon_that_should_run_differently_is_started_anew(processes, tmp_path, change):
    config = tmp_path / "config"
    config.write_text("before")
    processes.start(sleeper(files=[config]))
    first = processes.identity("sleeper")
    if change == "file":
        config.write_text("after")
    command = ["sleep", "61"] if change == "command" else ["sleep", "60"]
    environment = {"A": "b"} if change == "environment" else {}
    processes.start(Daemon("sleeper", command, lambda: True, environment=environment, files=[config]))
    assert processes.identity("sleeper") not in (None, first)
    assert not first.is_alive


@pytest.mark.parametrize(("key", "other"), [("started", 1), ("boot", "an earlier one")])
def test_a_process_that_only_has_the_same_pid_is_neither_taken_for_the_daemon_nor_stopped(tmp_path, key, other):
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        processes = Processes(tmp_path)
        processes.start(sleeper())
        record = tmp_path / "pids" / "sleeper.json"
        real = processes.identity("sleeper")
        content = json.loads(record.read_text()) | {"pid": stranger.pid, "started": start_time(stranger.pid)}
        record.write_text(json.dumps(content | {key: other}))
        assert processes.identity("sleeper") is None
        processes.stop(["sleeper"])
        assert stranger.poll() is None
        os.kill(real.pid, 9)
    finally:
        stranger.kill()
        stranger.wait()


def test_half_a_record_counts_as_none(tmp_path):
    record = tmp_path / "pids" / "sleeper.json"
    record.parent.mkdir()
    record.write_text('{"pid": 1')
    assert Processes(tmp_path).identity("sleeper") is None


def test_a_daemon_that_ends_at_once_is_an_error_with_the_end_of_its_log(processes):
    crashing = Daemon("crashing", ["sh", "-c", "echo no such port; exit 1"], lambda: False)
    with pytest.raises(DevError, match=r"(?s)crashing ended at once.*no such port"):
        processes.start(crashing)


def test_a_daemon_that_is_never_ready_is_an_error_that_names_its_log(processes):
    with pytest.raises(DevError, match=r"(?s)slow is ready: not within 0 s.*logs/slow\.log"):
        processes.start(Daemon("slow", ["sleep", "60"], lambda: False, within_seconds=0.2))


def test_a_daemon_that_ignores_the_polite_signal_is_killed(processes):
    deaf = Daemon("deaf", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], lambda: True)
    processes.start(deaf)
    found = processes.identity("deaf")
    processes.stop(["deaf"], within_seconds=0.2)
    assert not found.is_alive


def test_stopping_what_does_not_run_is_harmless(processes):
    processes.stop(["nobody"])
    assert processes.names() == []
