"""An event loop whose clock jumps to the next timer: hours of traffic in seconds, the same every time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: what the loop would wait for is told to `slept`."""

    def __init__(self, slept: Callable[[float], None]) -> None:
        super().__init__()
        self._slept = slept

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is scheduled, so time would stand still for ever"
            self._slept(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Only timers move its clock; threads and sockets must not be used on it."""

    def __init__(self) -> None:
        self._virtual_now = 1000.0
        super().__init__(_JumpingSelector(self._advance))

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual_now

    def _advance(self, seconds: float) -> None:
        self._virtual_now += seconds


def run_in_virtual_time(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine to its end."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
