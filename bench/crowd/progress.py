"""How far the run is: what it shows, and the waits until something is so."""

import sys
import time
from collections.abc import Callable


def show(words: str) -> None:
    """On standard error, as standard output is for the figures."""
    print(words, file=sys.stderr, flush=True)


def until(is_so: Callable[[], bool], within_seconds: float, tell: Callable[[], str] = str) -> None:
    """Waits, and shows now and then what is told.

    Raises:
        SystemExit: It was not so in time.
    """
    began = told_at = time.monotonic()
    while not is_so():
        now = time.monotonic()
        if now > began + within_seconds:
            raise SystemExit(f"not so within {within_seconds} s; {tell()}")
        if now > told_at + 10:
            told_at = now
            show(f"  {now - began:.0f} s {tell()}")
        time.sleep(0.05)
