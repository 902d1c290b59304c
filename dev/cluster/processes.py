"""Daemons: started in a session of their own, recorded by pid and start time, stopped by that record only."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dev.console import DevError, step, wait_until


@dataclass(frozen=True, slots=True)
class Daemon:
    """One program that runs until the cluster is taken down.

    Attributes:
        name: Of its record and its log.
        command: Program and arguments.
        is_ready: Whether it does its work by now.
        within_seconds: How long it may take until then.
        environment: Added to this process's own.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    within_seconds: float = 60
    environment: Mapping[str, str] = field(default_factory=dict)


class Processes:
    """The records of one cluster's daemons, in `<state>/pids`."""

    def __init__(self, state: Path) -> None:
        self._records = state / "pids"
        self._logs = state / "logs"

    def start(self, daemon: Daemon) -> None:
        """Starts the daemon unless it runs, and waits until it is ready.

        Raises:
            DevError: It ended, or was not ready in time; the message holds the end of its log.
        """
        log = self._logs / f"{daemon.name}.log"
        if self.is_alive(daemon.name):
            if daemon.is_ready():
                return
            self.stop(daemon.name)
        with step(f"starting {daemon.name}"):
            self._spawn(daemon, log)
            wait_until(
                lambda: self._died(daemon.name) or daemon.is_ready(),
                what=f"{daemon.name} is ready", within_seconds=daemon.within_seconds, log=log,
            )  # fmt: skip
            if self._died(daemon.name):
                wait_until(lambda: False, what=f"{daemon.name} ended at once; it", within_seconds=0, log=log)

    def stop(self, name: str, *, within_seconds: float = 15) -> None:
        """Ends the daemon: SIGTERM, then SIGKILL. Harmless where it does not run."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            pid = self._alive_pid(name)
            if pid is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
            with contextlib.suppress(DevError):
                wait_until(lambda: not self.is_alive(name), what=f"{name} ends", within_seconds=within_seconds)
        (self._records / f"{name}.json").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Every daemon that has a record."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def is_alive(self, name: str) -> bool:
        """Whether the very process that was started still runs."""
        return self._alive_pid(name) is not None

    def pid(self, name: str) -> int | None:
        """Its pid while it runs."""
        return self._alive_pid(name)

    def _spawn(self, daemon: Daemon, log: Path) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                daemon.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env={**os.environ, **daemon.environment},
            )  # fmt: skip
        record = {"pid": process.pid, "started": start_time(process.pid)}
        (self._records / f"{daemon.name}.json").write_text(json.dumps(record))

    def _alive_pid(self, name: str) -> int | None:
        path = self._records / f"{name}.json"
        if not path.exists():
            return None
        record = json.loads(path.read_text())
        return record["pid"] if is_same_process(record["pid"], record["started"]) else None

    def _died(self, name: str) -> bool:
        return not self.is_alive(name)


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and brackets: fields count from behind its last bracket.
    fields = text.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state == "Z" else int(ticks)


def is_same_process(pid: int, started: int | None) -> bool:
    """Whether the pid still belongs to the process that was started then, and not to a later one."""
    return started is not None and start_time(pid) == started
