"""Two batches at the device at once: their order, their failures, and whose time is whose."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from sluice_server.backend import Batch, BatchOutput, DeviceLostError, Launched, ModelInfo, OutOfDeviceMemoryError
from sluice_server.jobs import BatchResult, Job
from sluice_server.pipeline import Pipeline

SECONDS = 10
LENGTHS = (2, 3, 4, 5)


@dataclass
class LaunchedRows:
    """Its embeddings are the rows' lengths, once it may be done."""

    batch: Batch
    done: threading.Event
    failure: Exception | None

    def wait(self) -> BatchOutput:
        assert self.done.wait(SECONDS)
        if self.failure:
            raise self.failure
        return BatchOutput(self.batch.lengths[:, None].astype(np.float32), self.batch.useful_tokens)


@dataclass
class LaunchingDevice:
    """Computes when it is told to; batches of some sizes fail, when launched or when waited for."""

    holds_tokens: int = 10**9
    fails_to_launch: int = 0
    fails_to_end: int = 0
    ends_without_memory: int = 0
    loses_itself: int = 0
    computes: bool = True
    info: ModelInfo = field(default=ModelInfo("m", None, 1, 64, 64, 100, "bfloat16", "cuda", "packed", "mean", {}))
    launched: list[list[int]] = field(default_factory=list)
    dones: "queue.Queue[threading.Event]" = field(default_factory=queue.Queue)
    prepared: list[int] = field(default_factory=list)

    @property
    def execution(self) -> str:
        return "graphs"

    @property
    def token_steps(self) -> list[int]:
        return []

    def fingerprint(self) -> str:
        return "f"

    def warm_up_batches(self, boundaries: object) -> list[Batch]:
        return []

    def prepare(self, batch: Batch) -> bool:
        self.prepared.append(batch.useful_tokens)
        return batch.useful_tokens <= self.holds_tokens

    def embed(self, batch: Batch) -> BatchOutput:
        return self.launch(batch).wait()

    def launch(self, batch: Batch) -> Launched:
        tokens = batch.useful_tokens
        if tokens > self.holds_tokens:
            raise OutOfDeviceMemoryError
        if tokens == self.fails_to_launch:
            raise ValueError("not launched")
        self.launched.append(batch.lengths.tolist())
        failure: Exception | None = ValueError("a kernel failed") if tokens == self.fails_to_end else None
        failure = OutOfDeviceMemoryError() if tokens == self.ends_without_memory else failure
        failure = DeviceLostError("it fell off the bus") if tokens == self.loses_itself else failure
        done = threading.Event()
        if self.computes:
            done.set()
        self.dones.put(done)
        return LaunchedRows(batch, done, failure)


def job(number: int, lengths: tuple[int, ...] = LENGTHS, left_out: tuple[bool, ...] | None = None) -> Job:
    sizes = np.array(lengths, dtype=np.int32)
    batch = Batch(np.arange(sizes.sum(), dtype=np.int32), sizes, 8, len(sizes))
    return Job(number, batch, lambda _: None if left_out is None else np.array(left_out))


Results = list[tuple[int, BatchResult]]


@contextmanager
def running(
    device: LaunchingDevice,
    on_result: Callable[[int, BatchResult], None] | None = None,
    on_failure: Callable[[str], None] = pytest.fail,
) -> Iterator[tuple["queue.SimpleQueue[Job | None]", Results]]:
    """A pipeline in a thread of its own; all that was put into the queue is done behind it."""
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    results: Results = []
    pipeline = Pipeline(device, on_result or (lambda *one: results.append(one)), on_failure)
    thread = threading.Thread(target=pipeline.run, args=(jobs,), daemon=True)
    thread.start()
    yield jobs, results
    jobs.put(None)
    thread.join(SECONDS)
    assert not thread.is_alive()


def run(device: LaunchingDevice, *todo: Job) -> dict[int, BatchResult]:
    with running(device) as (jobs, results):
        for one in todo:
            jobs.put(one)
    assert [number for number, _ in results] == [one.number for one in todo], "in the order they came"
    return dict(results)


def rows(result: BatchResult) -> list[float]:
    assert result.output is not None, result.error
    return [float(row) for row in result.output.embeddings[:, 0]]


def test_results_come_in_the_order_of_the_batches() -> None:
    done = run(LaunchingDevice(), *(job(number, (number + 1, 1)) for number in range(6)))
    assert [rows(done[number]) for number in range(6)] == [[number + 1, 1] for number in range(6)]


def test_the_next_batch_is_launched_while_one_computes() -> None:
    device = LaunchingDevice(computes=False)
    with running(device) as (jobs, results):
        jobs.put(job(0))
        jobs.put(job(1))
        first, second = device.dones.get(timeout=SECONDS), device.dones.get(timeout=SECONDS)
        assert results == []
        first.set()
        second.set()
    assert [number for number, _ in results] == [0, 1]


def test_a_batchs_own_time_begins_when_the_one_before_it_ended() -> None:
    device = LaunchingDevice(computes=False)
    with running(device) as (jobs, results):
        jobs.put(job(0))
        jobs.put(job(1))
        for done in (device.dones.get(timeout=SECONDS), device.dones.get(timeout=SECONDS)):
            done.set()
    (_, first), (_, second) = results
    assert second.started_at == pytest.approx(first.started_at + first.busy_seconds, abs=1e-9)
    assert second.busy_seconds >= 0


@pytest.mark.parametrize("failing", [LaunchingDevice(fails_to_launch=14), LaunchingDevice(fails_to_end=14)])
def test_a_failing_batch_fails_alone_in_words_for_the_caller(failing: LaunchingDevice) -> None:
    done = run(failing, job(0, (1,)), job(1), job(2, (3,)))
    assert str(done[1].error) == "the device failed on a batch: ValueError"
    assert (rows(done[0]), rows(done[2])) == ([1], [3])


def test_a_lost_device_is_told_with_the_batch_that_showed_it() -> None:
    done = run(LaunchingDevice(loses_itself=14), job(0, (1,)), job(1))
    assert (done[0].lost, done[1].lost) == (None, "it fell off the bus")
    assert str(done[1].error) == "the device failed on a batch: DeviceLostError"


def test_a_batch_above_the_memory_is_launched_in_two_halves_and_its_size_told() -> None:
    device = LaunchingDevice(holds_tokens=10)
    result = run(device, job(0))[0]
    assert device.launched == [[2, 3], [4, 5]]
    assert (rows(result), result.too_large_tokens) == ([2, 3, 4, 5], 14)


@pytest.mark.parametrize("device", [LaunchingDevice(holds_tokens=6), LaunchingDevice(ends_without_memory=14)])
def test_a_batch_that_fits_in_no_way_fails_and_asks_for_smaller_ones(device: LaunchingDevice) -> None:
    result = run(device, job(0))[0]
    assert str(result.error) == "the device is out of memory"
    assert result.too_large_tokens == 7


def test_rows_that_nobody_waits_for_never_reach_the_device() -> None:
    device = LaunchingDevice()
    result = run(device, job(0, left_out=(False, True, False, True)))[0]
    assert device.launched == [[2, 4]]
    assert rows(result) == [2, 0, 4, 0]
    assert result.left_out is not None
    assert result.left_out.tolist() == [False, True, False, True]


def test_a_batch_that_nobody_waits_for_is_not_launched_at_all() -> None:
    device = LaunchingDevice()
    result = run(device, job(0, left_out=(True,) * 4))[0]
    assert device.launched == []
    assert result.output is not None
    assert result.output.computed_tokens == 0


def test_a_thread_that_reports_no_more_is_seen() -> None:
    told: queue.Queue[str] = queue.Queue()

    def broken(*_: object) -> None:
        raise ValueError("a mistake of ours")

    with running(LaunchingDevice(), on_result=broken, on_failure=told.put) as (jobs, _):
        jobs.put(job(0))
        assert told.get(timeout=SECONDS) == "the thread that reports results ended: ValueError"
