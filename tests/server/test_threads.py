"""How many threads there are, and which goes first."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sluice_server.threads import available_cpus, yield_cores

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


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "3200000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "no words at all"}, 8),
        ({}, 8),
    ],
)
def test_there_are_as_many_threads_as_whole_cpus_in_the_quota_of_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cpus(tmp_path) == cpus


FIRST_SIGHT_OF_TORCH = """
import builtins, os, sys
real = builtins.__import__
def watch(name, *rest, **named):
    if name == "torch" and "torch" not in sys.modules:
        print(os.environ.get("OMP_NUM_THREADS"), flush=True)
        os._exit(0)
    return real(name, *rest, **named)
builtins.__import__ = watch
from sluice_server.__main__ import main
sys.argv = ["sluice_server", "--grpc-port", "0", "--http-health-port", "0"]
main()
"""


def test_the_number_of_threads_is_said_before_torch_is_imported() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", FIRST_SIGHT_OF_TORCH]
    seen = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert seen.stdout.split() == [str(available_cpus())], seen.stderr
