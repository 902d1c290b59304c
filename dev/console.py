"""What the tools print while they work, and how they run commands and wait for conditions."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


class DevError(Exception):
    """A step failed; the message says what is wrong and, where it is known, the command that mends it."""


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Prints the step when it begins, and its seconds when it is done."""
    started = time.monotonic()
    print(f"  {what} …", flush=True)
    yield
    print(f"  {what}: {time.monotonic() - started:.1f} s", flush=True)


def run(
    command: Sequence[str | Path],
    *,
    timeout_seconds: float = 120,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Runs a command to its end and returns its standard output.

    Raises:
        DevError: It failed or ran too long; the message holds the end of what it said.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, input=stdin, env=environment, cwd=folder, timeout=timeout_seconds,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DevError(f"{' '.join(words)}: not done after {timeout_seconds:.0f} s") from error
    except FileNotFoundError as error:
        raise DevError(f"{words[0]}: not found") from error
    if done.returncode != 0:
        raise DevError(f"{' '.join(words)}: exit {done.returncode}\n{_tail(done.stderr or done.stdout)}")
    return done.stdout


def succeeds(command: Sequence[str | Path], *, timeout_seconds: float = 30) -> bool:
    """Whether a command exits 0."""
    try:
        run(command, timeout_seconds=timeout_seconds)
    except DevError:
        return False
    return True


def wait_until(
    is_so: Callable[[], bool], *, what: str, within_seconds: float, log: Path | None = None, every_seconds: float = 0.1
) -> None:
    """Looks again and again until it is so.

    Raises:
        DevError: It was not so in time; the message holds the end of the log.
    """
    deadline = time.monotonic() + within_seconds
    while not is_so():
        if time.monotonic() > deadline:
            evidence = f"\nend of {log}:\n{_tail(log.read_text(errors='replace'))}" if log and log.exists() else ""
            raise DevError(f"{what}: not within {within_seconds:.0f} s{evidence}")
        time.sleep(every_seconds)


def main_guard(main: Callable[[], int]) -> None:
    """Ends the process with main's result; a DevError becomes one message and exit code 1."""
    try:
        code = main()
    except DevError as error:
        print(f"\nerror: {error}", file=sys.stderr, flush=True)
        code = 1
    sys.exit(code)


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
