"""As many batches under way as there are slots, and no wait for ever."""

import pytest
from sluice_server.backend import DeviceLostError
from sluice_server.model.cuda.slots import Slot, Slots


def test_a_slot_is_lent_to_one_batch_at_a_time() -> None:
    slots = Slots([Slot(4, 1, 2, pinned=False) for _ in range(2)])
    assert slots.take(1) is not slots.take(1)
    with pytest.raises(DeviceLostError, match=r"no batch under way was finished within 0\.01 s"):
        slots.take(0.01)


def test_a_slot_that_comes_back_is_lent_again() -> None:
    slots = Slots([Slot(4, 1, 2, pinned=False)])
    first = slots.take(1)
    slots.give_back(first)
    assert slots.take(1) is first


def test_numpy_writes_what_the_device_reads() -> None:
    slot = Slot(4, 1, 2, pinned=False)
    slot.block[:] = [1, 2, 3, 4]
    assert slot.input.tolist() == [1, 2, 3, 4]
