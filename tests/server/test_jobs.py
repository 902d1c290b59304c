"""One batch: what is computed of it, what is left out, and what it survives."""

import numpy as np
import pytest
from sluice_server.backend import Batch, BatchOutput, ModelInfo, OutOfDeviceMemoryError
from sluice_server.jobs import BatchResult, Job, run_job

LENGTHS = np.array([2, 3, 4, 5], dtype=np.int32)


class Device:
    """Its embeddings are the rows' lengths; it holds so many tokens, or it is broken."""

    def __init__(self, *, holds_tokens: int = 10**9, layout: str = "packed", broken: bool = False) -> None:
        self.info = ModelInfo("m", None, 1, 64, 64, 100, "float32", "cpu", layout, "mean", {})
        self.batches: list[list[int]] = []
        self._holds_tokens = holds_tokens
        self._broken = broken

    def embed(self, batch: Batch) -> BatchOutput:
        if self._broken:
            raise ValueError("a kernel failed")
        if batch.useful_tokens > self._holds_tokens:
            raise OutOfDeviceMemoryError
        self.batches.append(batch.lengths.tolist())
        return BatchOutput(batch.lengths[:, None].astype(np.float32), batch.useful_tokens)

    def fingerprint(self) -> str:
        return "f"


def run(device: Device, *, left_out: tuple[bool, ...] | None = None) -> BatchResult:
    batch = Batch(np.arange(LENGTHS.sum(), dtype=np.int32), LENGTHS, 8, 8)
    return run_job(device, Job(0, batch, lambda _: None if left_out is None else np.array(left_out)))


def rows(result: BatchResult) -> list[float]:
    assert result.output is not None, result.error
    return [float(row) for row in result.output.embeddings[:, 0]]


def test_every_wanted_row_is_computed_once() -> None:
    device = Device()
    result = run(device)
    assert rows(result) == [2, 3, 4, 5]
    assert device.batches == [[2, 3, 4, 5]]
    assert (result.left_out, result.too_large_tokens, result.error) == (None, None, None)


def test_rows_that_nobody_waits_for_never_reach_the_device() -> None:
    device = Device()
    result = run(device, left_out=(False, True, False, True))
    assert device.batches == [[2, 4]]
    assert rows(result) == [2, 0, 4, 0]
    assert result.left_out is not None
    assert result.left_out.tolist() == [False, True, False, True]


def test_a_batch_that_nobody_waits_for_is_not_run_at_all() -> None:
    device = Device()
    result = run(device, left_out=(True,) * 4)
    assert device.batches == []
    assert result.output is not None
    assert result.output.computed_tokens == 0


def test_a_batch_above_the_devices_memory_is_computed_in_two_halves_and_its_size_told() -> None:
    device = Device(holds_tokens=10)
    result = run(device)
    assert device.batches == [[2, 3], [4, 5]]
    assert rows(result) == [2, 3, 4, 5]
    assert result.too_large_tokens == 14


def test_the_padded_layouts_size_is_its_rectangle() -> None:
    assert run(Device(holds_tokens=10, layout="padded")).too_large_tokens == 64


def test_a_half_above_the_memory_fails_the_batch_and_asks_for_still_smaller_ones() -> None:
    result = run(Device(holds_tokens=6))
    assert str(result.error) == "the device is out of memory"
    assert result.too_large_tokens == 7


def test_a_row_above_the_memory_fails_alone_and_says_nothing_of_batches_of_others() -> None:
    result = run(Device(holds_tokens=1), left_out=(True, True, True, False))
    assert str(result.error) == "the device is out of memory"
    assert result.too_large_tokens is None


@pytest.mark.parametrize("left_out", [None, (False, True, False, False)])
def test_a_failing_kernel_fails_the_batch_in_words_for_the_caller(left_out: tuple[bool, ...] | None) -> None:
    result = run(Device(broken=True), left_out=left_out)
    assert result.output is None
    assert str(result.error) == "the device failed on a batch: ValueError"
