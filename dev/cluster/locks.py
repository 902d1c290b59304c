"""Two locks: one command at a time works on a state folder, and one full cluster runs on a machine.

Both are `flock`s, which the kernel gives back however their holder ends.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dev.cluster.layout import MACHINE_LOCK, Layout
from dev.cluster.processes import Daemon, Processes
from dev.console import DevError, wait_until

# Holds the machine's lock for as long as the cluster is up; `up` and `down` themselves come and go.
HOLDER = "machine-lock"
# A command that was killed while it started a daemon leaves a child, which keeps the lock until it is that daemon.
_CHILD_SECONDS = 1.0


@contextlib.contextmanager
def state_lock(state: Path) -> Iterator[None]:
    """Keeps a second command from the same state folder.

    Raises:
        DevError: Another one works on it.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / ".lock").open("w") as file:
        try:
            wait_until(lambda: _takes(file), what="the lock is free", within_seconds=_CHILD_SECONDS, every_seconds=0.02)
        except DevError:
            raise DevError(f"another command of dev.cluster works on {state}; wait for it, then try again") from None
        yield


def _takes(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def last_owner() -> Path | None:
    """The state folder of the cluster that runs on this machine, or ran last and was not taken down."""
    text = MACHINE_LOCK.read_text() if MACHINE_LOCK.exists() else ""
    return Path(text) if text else None


def take_machine(layout: Layout, processes: Processes) -> Path | None:
    """Makes this machine ours; returns the earlier owner if it left without being taken down.

    Raises:
        DevError: Another full cluster is up.
    """
    if processes.identity(HOLDER):
        return None
    descriptor = os.open(MACHINE_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        earlier = last_owner()
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(layout.state).encode(), 0)
        processes.start(Daemon(HOLDER, ["sleep", "infinity"], lambda: True, handed_over=[descriptor]))
    except BlockingIOError:
        raise DevError(
            f"the full cluster of {last_owner()} is up on this machine, which has room for one; "
            f"stop it: python3 -m dev.cluster down --state-dir {last_owner()}"
        ) from None
    finally:
        os.close(descriptor)
    return earlier if earlier != layout.state else None


def release_machine(processes: Processes) -> None:
    """Says that nothing is left on the machine, then lets another cluster come."""
    MACHINE_LOCK.write_text("")
    processes.stop([HOLDER])
