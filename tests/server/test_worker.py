"""The device's thread: how it starts, and how batches go through it."""

import os
import queue
import sys
import threading

import pytest
from sluice_server.backend import Backend
from sluice_server.cost import Measurement
from sluice_server.worker import Worker, WorkerCallbacks

from tests.server.test_jobs import Device
from tests.server.test_pipeline import LaunchingDevice, job


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a priority per thread")
def test_the_threads_that_compute_yield_to_those_that_answer() -> None:
    seen: list[int] = []
    loaded = threading.Event()

    def load() -> Device:
        helper = threading.Thread(target=lambda: seen.append(own_niceness()))
        helper.start()
        helper.join(10)
        seen.append(own_niceness())
        return Device()

    callbacks = WorkerCallbacks(
        on_phase=lambda *_: None,
        on_ready=lambda *_: loaded.set(),
        on_result=lambda *_: None,
        on_failure=pytest.fail,
    )
    worker = Worker(load, lambda _: [], callbacks)
    worker.start()
    assert loaded.wait(10)
    worker.stop(10)
    assert all(niceness > own_niceness() for niceness in seen), "so do those that it starts"
    assert len(seen) == 2


def timings_of(device: Backend, *lengths: tuple[int, ...]) -> list[Measurement]:
    """What the warm-up measured with batches of these rows."""
    ready: queue.Queue[list[Measurement]] = queue.Queue()
    callbacks = WorkerCallbacks(
        on_phase=lambda *_: None,
        on_ready=lambda *told: ready.put(told[2]),
        on_result=lambda *_: None,
        on_failure=pytest.fail,
    )
    worker = Worker(lambda: device, lambda _: [job(0, rows).batch for rows in lengths], callbacks)
    worker.start()
    timings = ready.get(timeout=10)
    worker.stop(10)
    return timings


def test_each_batch_of_the_warm_up_is_measured() -> None:
    assert [one.tokens for one in timings_of(Device(), (4, 4), (2,))] == [8, 2]


def test_a_device_that_launches_prepares_each_shape_before_it_is_measured() -> None:
    device = LaunchingDevice()
    assert [one.tokens for one in timings_of(device, (4, 4), (2,))] == [8, 2]
    assert device.prepared == [8, 2]


def test_a_shape_above_the_memory_is_left_out_of_the_timings() -> None:
    device = LaunchingDevice(holds_tokens=5)
    assert [one.tokens for one in timings_of(device, (4, 4), (2,))] == [2]


def own_niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
