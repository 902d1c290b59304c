"""Which thread goes first."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sluice_server.threads import yield_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a priority per thread")


def own_niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def after(*steps: int) -> int:
    """What a thread that yields in these steps ends with."""

    def run() -> int:
        for step in steps:
            yield_cores(step)
        return own_niceness()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(timeout=10)


def test_a_thread_goes_further_behind_from_where_it_is_and_never_forward() -> None:
    before = own_niceness()
    assert after(3, 2) == min(19, before + 5)
    assert own_niceness() == before, "the others stay where they are"


def test_behind_the_last_there_is_no_place() -> None:
    assert after(19, 19) == 19
