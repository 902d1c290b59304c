"""A wait for the device ends."""

import pytest
import torch
from sluice_server.backend import DeviceLostError
from sluice_server.model.cuda.streams import HostQueue, _EventMark


class Event:
    """Done after so many looks."""

    def __init__(self, looks: float) -> None:
        self.looks = looks

    def query(self) -> bool:
        self.looks -= 1
        return self.looks <= 0


class BrokenEvent:
    """What CUDA says of every event once a kernel has failed."""

    def query(self) -> bool:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nIt may be reported late.")


def test_a_mark_is_waited_for_until_the_device_reached_it() -> None:
    event = Event(3)
    _EventMark(event).wait(10)
    assert event.looks == 0


def test_a_device_that_hangs_is_given_up() -> None:
    with pytest.raises(DeviceLostError, match=r"did not finish a batch within 0\.01 s"):
        _EventMark(Event(float("inf"))).wait(0.01)


def test_a_device_that_fails_is_given_up() -> None:
    with pytest.raises(DeviceLostError, match="the device failed: CUDA error: an illegal memory access"):
        _EventMark(BrokenEvent()).wait(10)


def test_a_cpu_is_never_waited_for() -> None:
    HostQueue().mark().wait(0)
