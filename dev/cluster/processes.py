"""Daemons: started in a session of their own, recorded by pid and start time, stopped by that record only."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
        files: Configuration that it reads at its start only; a change of it restarts the daemon.
        handed_over: File descriptors that it keeps open.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[], bool]
    within_seconds: float = 60
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    handed_over: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """One process and no other: a pid is used again, also with the same ticks after the machine restarts.

    Attributes:
        pid: Its number.
        started: Clock ticks from the machine's start to its own.
        boot: Of the machine's run.
        fingerprint: Of the command and the configuration that it was started with.
    """

    pid: int
    started: int
    boot: str
    fingerprint: str

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return self.boot == _boot() and start_time(self.pid) == self.started


class Processes:
    """The records of one cluster's daemons, in `<state>/pids`."""

    def __init__(self, state: Path) -> None:
        self._records = state / "pids"
        self._logs = state / "logs"

    def start(self, daemon: Daemon) -> None:
        """Starts the daemon unless it runs as it should, and waits until it is ready.

        Raises:
            DevError: It ended, or was not ready in time; the message holds the end of its log.
        """
        fingerprint = _fingerprint(daemon)
        running = self.identity(daemon.name)
        if running:
            if running.fingerprint == fingerprint and daemon.is_ready():
                return
            self.stop([daemon.name])
        with step(f"starting {daemon.name}"):
            self._spawn(daemon, fingerprint)
            self._await(daemon)

    def stop(self, names: Iterable[str], *, within_seconds: float = 10) -> None:
        """Ends the daemons together: SIGTERM, then SIGKILL. Harmless where they do not run.

        Raises:
            DevError: One does not even end on SIGKILL.
        """
        targets = {name: found for name in names if (found := self.identity(name))}
        for sent, patience in ((signal.SIGTERM, within_seconds), (signal.SIGKILL, 10.0)):
            alive = {name: found for name, found in targets.items() if found.is_alive}
            for found in alive.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found.pid, sent)
            try:
                _await_end(alive, patience)
            except DevError:
                if sent is signal.SIGKILL:
                    raise
        for name in targets:
            self._record(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Every daemon that has a record."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def identity(self, name: str) -> Identity | None:
        """The daemon's process while it runs."""
        try:
            found = Identity(**json.loads(self._record(name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return found if found.is_alive else None

    def log(self, name: str) -> Path:
        """Where the daemon's output goes."""
        return self._logs / f"{name}.log"

    def _record(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _await(self, daemon: Daemon) -> None:
        log = self.log(daemon.name)
        wait_until(
            lambda: self.identity(daemon.name) is None or daemon.is_ready(),
            what=f"{daemon.name} is ready", within_seconds=daemon.within_seconds, log=log, every_seconds=0.05,
        )  # fmt: skip
        if self.identity(daemon.name) is None:
            wait_until(lambda: False, what=f"{daemon.name} ended at once; it is ready", within_seconds=0, log=log)

    def _spawn(self, daemon: Daemon, fingerprint: str) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        record = self._record(daemon.name)
        with self.log(daemon.name).open("ab") as output:
            # The child writes its own record before it becomes the daemon: whatever kills this
            # command in between, no daemon is ever left without a record. (No thread runs here.)
            process = subprocess.Popen(
                daemon.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env={**os.environ, **daemon.environment}, pass_fds=daemon.handed_over,
                preexec_fn=lambda: _record_self(record, fingerprint),  # noqa: PLW1509
            )  # fmt: skip
        # The daemon outlives this program: nobody waits for it, and Python need not warn of that.
        process.returncode = 0


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_start_time(text)


def parse_start_time(stat: str) -> int | None:
    """The start time in a line of /proc/<pid>/stat; None for a zombie, which runs no more.

    A zombie with threads still ends: until they are gone its ports are taken.
    """
    # The name may hold spaces and brackets: fields count from behind its last bracket.
    fields = stat.rpartition(")")[2].split()
    state, threads, ticks = fields[0], int(fields[17]), int(fields[19])
    return None if state == "Z" and threads <= 1 else ticks


def _record_self(record: Path, fingerprint: str) -> None:
    pid = os.getpid()
    identity = Identity(pid, start_time(pid) or 0, _boot(), fingerprint)
    draft = record.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(identity)))
    draft.rename(record)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _fingerprint(daemon: Daemon) -> str:
    digest = hashlib.sha256(json.dumps([list(daemon.command), dict(daemon.environment)]).encode())
    for path in daemon.files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _await_end(processes: Mapping[str, Identity], within_seconds: float) -> None:
    wait_until(
        lambda: not any(process.is_alive for process in processes.values()),
        what=f"{', '.join(processes)} end", within_seconds=within_seconds, every_seconds=0.05,
    )  # fmt: skip
