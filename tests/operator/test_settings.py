"""The operator's settings."""

import pytest
from pydantic import ValidationError
from sluice_operator.settings import from_command_line


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCH_NAMESPACES", "a, b,")
    monkeypatch.setenv("SERVER_IMAGE", "")
    read = from_command_line([])
    assert read.watch_namespaces == ("a", "b")
    assert read.server_image is None


def test_a_flag_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLL_INTERVAL_SECONDS", "5")
    assert from_command_line(["--poll-interval-seconds=3"]).poll_interval_seconds == 3


def test_a_single_operator_may_do_without_a_lease() -> None:
    assert from_command_line([]).leader_election
    assert not from_command_line(["--no-leader-election"]).leader_election


def test_a_deadline_that_could_let_two_act_is_refused_with_a_sentence() -> None:
    with pytest.raises(
        ValidationError, match=r"LEASE_RENEW_DEADLINE_SECONDS=12 must be below LEASE_DURATION_SECONDS=10"
    ):
        from_command_line(["--lease-renew-deadline-seconds=12"])


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        from_command_line(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "--watch-namespaces" in printed
    assert "How often pods are asked for /health" in printed


@pytest.mark.parametrize(
    "arguments",
    [["--lease-renew-deadline-seconds=10"], ["--lease-renew-interval-seconds=4"], ["--lease-duration-seconds=1"],
     ["--poll-interval-seconds=0"], ["--log-level=LOUD"], ["--poll-concurrency=0"], ["--http-port=99999"]],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ValidationError):
        from_command_line(arguments)
