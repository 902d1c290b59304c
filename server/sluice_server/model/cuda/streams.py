"""What a device computes in order, and how to know that it is done: a CUDA stream, or a CPU for which nothing waits."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch

from sluice_server.backend import DeviceLostError

# Between two looks at an event: CUDA has no wait with a time-out, and a device that hangs must be seen.
_LOOK_SECONDS = 50e-6


class Mark(Protocol):
    """A place in the queue."""

    def wait(self, seconds: float) -> None:
        """Returns once all before it is computed; called in any thread.

        Raises:
            DeviceLostError: It took longer, or something before it failed.
        """


class DeviceQueue(Protocol):
    """Of one device; used by one thread, its marks by any."""

    @property
    def stream(self) -> torch.cuda.Stream | None:
        """To capture graphs from; None where there are none."""

    def entered(self) -> AbstractContextManager[object]:
        """What is computed within goes into this queue."""

    def mark(self) -> Mark:
        """Behind everything so far.

        Raises:
            DeviceLostError: Something before it failed: CUDA then refuses all that comes after.
        """


class CudaQueue:
    """A stream of its own: graphs cannot be captured from the default one."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # The weights came through the default stream.
        self.stream.wait_stream(torch.cuda.current_stream())

    def entered(self) -> AbstractContextManager[object]:
        """See DeviceQueue."""
        return torch.cuda.stream(self.stream)

    def mark(self) -> Mark:
        """See DeviceQueue."""
        try:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self.stream)
        except torch.AcceleratorError as error:
            raise _lost(error) from error
        return _EventMark(event)


class HostQueue:
    """A CPU: what was called is computed. The same code runs on it, without graphs."""

    stream = None

    def entered(self) -> AbstractContextManager[object]:
        """See DeviceQueue."""
        return nullcontext()

    def mark(self) -> Mark:
        """See DeviceQueue."""
        return _Reached()


class _EventMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def wait(self, seconds: float) -> None:
        """See Mark."""
        limit = time.monotonic() + seconds
        try:
            while not self._event.query():  # type: ignore[no-untyped-call]
                if time.monotonic() > limit:
                    raise DeviceLostError(f"the device did not finish a batch within {seconds:g} s")
                time.sleep(_LOOK_SECONDS)
        except torch.AcceleratorError as error:
            raise _lost(error) from error


class _Reached:
    def wait(self, seconds: float) -> None:
        """See Mark."""


def _lost(error: torch.AcceleratorError) -> DeviceLostError:
    return DeviceLostError(f"the device failed: {str(error).splitlines()[0]}")
