"""How far a command is: one line that is drawn again, on a terminal only."""

import shutil
import time
from typing import TextIO

_BAR = 30
_SECONDS_BETWEEN = 0.1
_CLEAR = "\r\x1b[K"


class Progress:
    """Draws to a terminal; does nothing elsewhere.

    Args:
        stream: Standard error.
        total: Inputs in all; None where that is not known.
        shown: False draws nothing.
    """

    def __init__(self, stream: TextIO, total: int | None, *, shown: bool) -> None:
        self._stream, self._total, self._shown = stream, total, shown
        self._started = time.monotonic()
        self._drawn_at = float("-inf")

    def update(self, done: int) -> None:
        """Draws, at most ten times a second."""
        now = time.monotonic()
        if self._shown and now - self._drawn_at >= _SECONDS_BETWEEN:
            self._drawn_at = now
            self._draw(done, now)

    def finish(self, done: int) -> None:
        """Draws the last state and leaves it on the screen."""
        if self._shown:
            self._draw(done, time.monotonic())
            self._stream.write("\n")
            self._stream.flush()

    def clear(self) -> None:
        """Makes room for a message."""
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def _draw(self, done: int, now: float) -> None:
        text = line(done, self._total, now - self._started)
        self._stream.write(_CLEAR + text[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()


def line(done: int, total: int | None, seconds: float) -> str:
    """What is drawn."""
    rate = done / seconds if seconds > 0 else 0.0
    if total is None:
        return f"{done} inputs, {rate:.0f}/s"
    filled = _BAR * done // max(total, 1)
    left = f", {_clock((total - done) / rate)} left" if rate > 0 and done < total else ""
    return f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total}, {rate:.0f}/s{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
