"""Pinned memory for the batches under way, two of them: from it and into it the device copies by itself."""

import queue

import torch

from sluice_server.backend import DeviceLostError

# One batch is computed while the next is staged.
SLOTS = 2


class Slot:
    """One batch's input and output on the host.

    Args:
        input_size: int32 that the largest input takes.
        rows: Of the largest output.
        width: Of one embedding.
        pinned: Page-locked, for a GPU; other memory would make every copy wait.
    """

    def __init__(self, input_size: int, rows: int, width: int, *, pinned: bool) -> None:
        self.input = torch.empty(input_size, dtype=torch.int32, pin_memory=pinned)
        self.output = torch.empty((rows, width), dtype=torch.float32, pin_memory=pinned)
        # The same memory, for numpy.
        self.block = self.input.numpy()
        self.rows = self.output.numpy()


class Slots:
    """Lends them out, one batch each.

    Args:
        slots: All of them.
    """

    def __init__(self, slots: list[Slot]) -> None:
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    def take(self, seconds: float) -> Slot:
        """A free one, as soon as there is one.

        Raises:
            DeviceLostError: None came back in time.
        """
        try:
            return self._free.get(timeout=seconds)
        except queue.Empty as error:
            raise DeviceLostError(f"no batch under way was finished within {seconds:g} s") from error

    def give_back(self, slot: Slot) -> None:
        """Nobody reads or writes it any more."""
        self._free.put(slot)
